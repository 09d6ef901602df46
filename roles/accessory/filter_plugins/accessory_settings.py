"""What an accessory is started with: options that follow from its memory, and the secret that it is handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]

MIB_PER_CONNECTION = 8
"""A session of PostgreSQL takes 2 to 10 MiB beside what all of them share."""

CONNECTIONS = 20, 100
"""As few as several replicas with a small pool each need, and PostgreSQL's own default."""

OTHER_PROCESSES = 32
"""What a server has beside its connections, and who looks after it."""


def _connections(memory: float) -> int:
    least, most = CONNECTIONS
    return min(max(int(memory / MIB_PER_CONNECTION), least), most)


def _postgresql(memory: float) -> list[str]:
    connections = _connections(memory)
    settings = {
        # PostgreSQL's manual, 19.4: a quarter of the memory to begin with.
        "shared_buffers": f"{memory / 4:.0f}MB",
        # What the kernel keeps of its files counts for the container too.
        "effective_cache_size": f"{memory / 2:.0f}MB",
        "max_connections": str(connections),
        # A quarter for all that sort at once.
        "work_mem": f"{max(memory * 1024 / 4 / connections, 64):.0f}kB",
        "maintenance_work_mem": f"{max(memory / 16, 1):.0f}MB",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _redis(memory: float) -> list[str]:
    # Half, because a backup copies what changes meanwhile, at worst all of it.
    return ["--maxmemory", f"{memory / 2:.0f}mb"]


OPTIONS: dict[str, Callable[[float], list[str]]] = {"postgresql": _postgresql, "redis": _redis}


def server_options(kind: str, memory: float) -> list[str]:
    """Derive the options of a server from its memory limit.

    Args:
        kind: Which server it is.
        memory: The limit in MiB.

    Returns:
        Words of a command line.
    """
    return OPTIONS[kind](memory)


def process_limit(kind: str, memory: float) -> int:
    """Say how many processes a server may have.

    Args:
        kind: Which server it is; PostgreSQL has one for each connection.
        memory: The limit in MiB.

    Returns:
        The number.
    """
    return OTHER_PROCESSES + (_connections(memory) if kind == "postgresql" else 0)


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
        """Name the filters.

        Returns:
            The functions by their names.
        """
        return {"server_options": server_options, "process_limit": process_limit, "as_secrets": as_secrets}
