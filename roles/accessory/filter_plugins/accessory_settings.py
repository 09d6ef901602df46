"""Ansible filter: describes the password of a database as the secret that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def as_secrets(accessories: Sequence[Entry], kinds: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """Describe the password of each accessory as the secret of a service, with the number of the user that may read it.

    ``accessories`` have been checked, and ``kinds`` has the number of the user of each kind.
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
