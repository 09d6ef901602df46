"""Fixtures of the tests that try what attackers try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.live_outsider import Outsider


@pytest.fixture(scope="module")
def outsider(host: Host) -> Iterator[Outsider]:
    """Make a machine outside, because sshd delays whoever fails to log in, and that must not be the controller."""
    outsider = Outsider(host)
    yield outsider
    outsider.leave()
