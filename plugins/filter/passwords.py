"""Ansible filters: describe the passwords of accessories as secrets, and give them to the services that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def password_name(accessory: str) -> str:
    """Name the secret that holds an accessory's password, which is its file in /run/secrets."""
    return f"{accessory}_password"


def as_secrets(accessories: Any) -> Any:
    """Describe accessories as services are, with name and secrets, so that checks of secrets cover their passwords too.

    What is no list of mappings stays as it is.
    """
    if not isinstance(accessories, list) or not all(isinstance(entry, Mapping) for entry in accessories):
        return accessories
    return [{"name": entry.get("name"), "secrets": {"password": entry.get("password")}} for entry in accessories]


def with_passwords(services: Sequence[Entry], accessories: Sequence[Entry]) -> list[dict[str, Any]]:
    """Give each service the passwords of the accessories that it names, as secrets of its own."""
    passwords = {one["name"]: one["password"] for one in accessories}
    return [
        _with(one, {password_name(name): passwords[name] for name in one.get("accessories", [])}) for one in services
    ]


def _with(service: Entry, passwords: Mapping[str, str]) -> dict[str, Any]:
    return {**service, "secrets": {**service.get("secrets", {}), **passwords}} if passwords else dict(service)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"as_secrets": as_secrets, "with_passwords": with_passwords}
