"""Ansible filter: which service is given the password of which accessory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def password_name(accessory: str) -> str:
    """Name the secret that holds an accessory's password.

    Args:
        accessory: Name of the accessory.

    Returns:
        What the file in /run/secrets is called.
    """
    return f"{accessory}_password"


def with_passwords(services: Sequence[Entry], accessories: Sequence[Entry]) -> list[dict[str, Any]]:
    """Give each service the passwords of the accessories that it names, as secrets of its own.

    Args:
        services: Value of ``stack_services``, checked.
        accessories: Value of ``accessory_services``, checked.

    Returns:
        The services; those that name none are as they were.
    """
    passwords = {one["name"]: one["password"] for one in accessories}
    return [
        _with(one, {password_name(name): passwords[name] for name in one.get("accessories", [])}) for one in services
    ]


def _with(service: Entry, passwords: Mapping[str, str]) -> dict[str, Any]:
    return {**service, "secrets": {**service.get("secrets", {}), **passwords}} if passwords else dict(service)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filter.

        Returns:
            The function by its name.
        """
        return {"with_passwords": with_passwords}
