"""Ansible filter: gives each service the passwords of the accessories that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def password_name(accessory: str) -> str:
    """Name the secret that holds an accessory's password, which is its file in /run/secrets."""
    return f"{accessory}_password"


def with_passwords(services: Sequence[Entry], accessories: Sequence[Entry]) -> list[dict[str, Any]]:
    """Give each service the passwords of the accessories that it names, as secrets of its own.

    Both lists have been checked; services that name no accessory stay as they are.
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
        """Name the filter."""
        return {"with_passwords": with_passwords}
