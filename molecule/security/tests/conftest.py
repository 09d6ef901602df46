"""Fixtures of what attackers try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.live_outsider import Outsider


@pytest.fixture(scope="module")
def outsider(host: Host) -> Iterator[Outsider]:
    """Give a machine outside: sshd makes who fails wait, and that must not be the controller.

    Args:
        host: The instance.
    """
    outsider = Outsider(host)
    yield outsider
    outsider.leave()
