"""Ansible filter: names the folder on a machine for the secrets of a service by what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1
"""RFC 7914's cost for a log-in, doubled: 32 MiB and about 0.1 s. The name stands in compose.yml, and whoever reads it
must not be able to try millions of guesses of a short password in a second."""
SCRYPT_MEMORY = 2 * 128 * SCRYPT_N * SCRYPT_R
"""Twice what it needs, in bytes, because OpenSSL counts its own overhead too."""
DIGEST_BYTES = 6


def secrets_folder(service: Mapping[str, Any], stack: str) -> str:
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


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name the filter."""
        return {"secrets_folder": secrets_folder}
