"""Which port the containers of a service listen on."""

from __future__ import annotations

import zlib
from collections.abc import Callable

FIRST = 10000
COUNT = 20000
"""Ports that nobody else in a container has: below those that the kernel gives to clients, which begin at 32768."""


def service_port(name: str) -> int:
    """Derive a port from the name of a service alone, so that no other service changes it.

    Args:
        name: Name of the service.

    Returns:
        The port. Two names may have the same one; the stack role refuses them together.
    """
    return FIRST + zlib.crc32(name.encode()) % COUNT


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., int]]:
        """Name the filters.

        Returns:
            Filter names and functions.
        """
        return {"service_port": service_port}
