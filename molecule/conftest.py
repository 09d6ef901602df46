"""Fixtures of all scenarios."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.live_stack import Stack


@pytest.fixture
def stack(host: Host) -> Stack:
    """Give the stack on the host under test.

    Args:
        host: The instance.

    Returns:
        Its stack.
    """
    return Stack(host)
