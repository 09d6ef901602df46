"""Where the configuration of a service's application server is on its machine, in a folder named by what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

DIGEST_LENGTH = 12


def server_folder(name: str, text: str) -> str:
    """Name the folder, so that another configuration is another folder: Compose then replaces the replicas.

    Args:
        name: Name of the service.
        text: The configuration.

    Returns:
        The service's name with a digest of the text.
    """
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name the filter.

        Returns:
            The function by its name.
        """
        return {"server_folder": server_folder}
