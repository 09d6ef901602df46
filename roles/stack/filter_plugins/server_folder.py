"""Ansible filter: names the folder on a machine for an application server's configuration by what that says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

DIGEST_LENGTH = 12


def server_folder(name: str, text: str) -> str:
    """Name the folder of a service's configuration, so that Compose replaces the replicas when it changes."""
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name the filter."""
        return {"server_folder": server_folder}
