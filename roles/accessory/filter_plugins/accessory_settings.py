"""The secret that a database is handed: its password."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def as_secrets(accessories: Sequence[Entry], kinds: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Describe the password of each accessory as the secret of a service.

    Args:
        accessories: Value of ``accessory_services``, checked.
        kinds: For each kind the number of its user.

    Returns:
        Name, secrets, and the number of the user that may read them.
    """
    return [
        {"name": one["name"], "secrets": {"password": one["password"]}, "user": kinds[one["kind"]]["user"]}
        for one in accessories
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filter."""
        return {"as_secrets": as_secrets}
