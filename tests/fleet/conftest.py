"""Fixtures of the tests of the machine's program."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _sigterm() -> Iterator[None]:
    """Listen to SIGTERM again, which a job does not after its end."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
