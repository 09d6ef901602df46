"""Fixtures of what attackers try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.live_outsider import Outsider


def pytest_configure(config: pytest.Config) -> None:
    """Say which tests `make test` has no time for.

    Args:
        config: Of pytest.
    """
    config.addinivalue_line("markers", "long: minutes of deploys and scans; in `make security`")


@pytest.fixture(scope="module")
def outsider(host: Host) -> Iterator[Outsider]:
    """Give a machine outside: sshd makes who fails wait, and that must not be the controller.

    Args:
        host: The instance.
    """
    outsider = Outsider(host)
    yield outsider
    outsider.leave()
