"""Fixtures of the tests of the machine's program."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _sigterm() -> Iterator[None]:
    """Restore the handling of SIGTERM, which a job ignores after its end."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
