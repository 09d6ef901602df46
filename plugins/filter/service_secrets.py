"""Ansible filters: the secrets of services, passwords of databases included, and the folders for them on a machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

Entry = Mapping[str, Any]

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1
"""RFC 7914's cost for a log-in, doubled: 32 MiB and about 0.1 s. The name stands in compose.yml, and whoever reads it
must not be able to try millions of guesses of a short password in a second."""
SCRYPT_MEMORY = 2 * 128 * SCRYPT_N * SCRYPT_R
"""Twice what it needs, in bytes, because OpenSSL counts its own overhead too."""
DIGEST_BYTES = 6


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


def secrets_folder(service: Entry, stack: str) -> str:
    """Name the folder of a service's secrets, so that Compose replaces the replicas when a value changes.

    The name is the service's with a digest of all its secrets, the same on every machine and in every run. ``service``
    is an entry of ``stack_services`` that has secrets, and ``stack`` is the name of the Compose project.
    """
    content = json.dumps({name: str(value) for name, value in service["secrets"].items()}, sort_keys=True)
    salt = f"{stack}/{service['name']}"
    return f"{service['name']}-{_digest(content, salt)}"


@cache
def _digest(content: str, salt: str) -> str:
    return hashlib.scrypt(
        content.encode(),
        salt=salt.encode(),
        n=SCRYPT_N,
        r=SCRYPT_R,
        p=SCRYPT_P,
        maxmem=SCRYPT_MEMORY,
        dklen=DIGEST_BYTES,
    ).hex()


def secret_folders(
    services: Sequence[Entry], stack: str, directory: str, owners: Mapping[str, int]
) -> list[dict[str, Any]]:
    """List the folders of all services with secrets as ``flask-fleet secrets`` takes them.

    ``owners`` are the numbers of the users that may read them, by service.
    """
    return [
        {
            "path": f"{directory}/secrets/{secrets_folder(one, stack)}",
            "owner": owners[one["name"]],
            "secrets": {name: str(value) for name, value in one["secrets"].items()},
        }
        for one in services
        if one.get("secrets")
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {
            "as_secrets": as_secrets,
            "secret_folders": secret_folders,
            "secrets_folder": secrets_folder,
            "with_passwords": with_passwords,
        }
