"""moto reads its options when it is imported, so they are set before any test of the rehearsal is."""

import os
from pathlib import Path

import pytest

from rehearsal import daemon
from rehearsal.state import Settings, State

os.environ.update(daemon.moto_environment())


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Give settings of a rehearsal whose state is in a temporary directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Settings("trial", 7199, "10.99.0.0/16", "flask-fleet/instance:abc")


@pytest.fixture
def state(settings: Settings) -> State:
    """Give the state directory of those settings."""
    return State.of(settings.name)
