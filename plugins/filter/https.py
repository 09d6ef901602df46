"""Ansible filter: tells whether a stack serves HTTPS."""

from __future__ import annotations

from collections.abc import Callable


def serves_https(certificate_mode: str) -> bool:
    """Tell whether a stack with this ``certificate_mode`` serves HTTPS."""
    return certificate_mode != "none"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[[str], bool]]:
        """Name the filter."""
        return {"serves_https": serves_https}
