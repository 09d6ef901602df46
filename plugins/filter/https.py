"""Whether a stack serves HTTPS."""

from __future__ import annotations

from collections.abc import Callable


def serves_https(certificate_mode: str) -> bool:
    """Tell it by the value of ``certificate_mode``."""
    return certificate_mode != "none"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[[str], bool]]:
        """Name the filter."""
        return {"serves_https": serves_https}
