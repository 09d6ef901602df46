"""Settings of a rehearsal for the tests of it."""

from pathlib import Path

import pytest

from rehearsal import docker, firewall
from rehearsal.state import Settings, State


@pytest.fixture(autouse=True)
def _no_packet_filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the fast tests away from this machine's packet filter."""
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setattr(firewall.Host, "attempt", lambda *_: docker.Outcome(0, "", ""))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Give settings of a rehearsal whose state is in a temporary directory."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Settings("trial", 7199, "10.99.0.0/16", "flask-fleet/instance:abc")


@pytest.fixture
def state(settings: Settings) -> State:
    """Give the state directory of those settings."""
    return State.of(settings.name)
