"""Fixtures of the tests of the machine's program."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _sigterm() -> Iterator[None]:
    """Restore the handling of SIGTERM, which a job ignores after its end."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a stack whose only release is live, and has worked."""
    stack, release = tmp_path / "stack", tmp_path / "stack/releases/da39a3ee5e6b"
    for file in (stack / "compose.yml", stack / "nginx/nginx.conf", release / "compose.yml", release / "nginx.conf"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (release / "activated").write_text("jane\n")
    return stack
