"""Ansible filters: how many replicas a machine gets, and how much of the machine each, where a service does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Service = Mapping[str, Any]

SYSTEM_MIB = 192
"""What Debian 13, sshd and the Docker engine take beside the containers, in MiB."""

MOST_PROCESSES = 12
"""gunicorn's design page: 4 to 12 workers are enough for hundreds or thousands of requests per second."""

IDLE_MIB = 40
"""A replica of the sample app idles at 28 MiB (uWSGI), 33 to 40 MiB (gunicorn) or 43 MiB (Granian), measured."""

LEAST_MEMORY_MIB = 64
"""Room for that and for the requests of four threads."""

MOST_MEMORY_MIB = 512
"""A replica that needs more, over ten times what it idles at, has to say so."""

MOST_CPUS = 1.0
"""A replica is one Python process, which runs Python on one CPU at a time."""

THREADS_PER_CPU = 4
"""gunicorn's settings page: threads are generally in the range of 2 to 4 x cores. They wait more than they compute."""

THREAD_MIB = 4
"""A thread of the sample app that takes bodies of 1 MiB adds 0.8 to 1.5 MiB, measured; an app does more with them."""

MIB_PER_UNIT = {"k": 1 / 1024, "m": 1.0, "g": 1024.0}


def memory_mib(size: object) -> float | None:
    """Read a memory size as Compose writes it, such as ``128m`` or ``1g``, in MiB; None when it cannot be read."""
    match = re.fullmatch(r"([1-9]\d*)([kmg])b?", str(size).lower())
    return int(match[1]) * MIB_PER_UNIT[match[2]] if match else None


def threads(memory: object, cpus: object) -> int:
    """Say how many requests a replica handles at a time, whichever server it has.

    They are as many threads as its CPUs are kept busy by, where a part of a CPU counts as one; fewer where its memory,
    as Compose writes it, is not enough for that many requests, but at least one.
    """
    fitting = int((_size(memory) - IDLE_MIB) // THREAD_MIB)
    return max(min(THREADS_PER_CPU * math.ceil(float(str(cpus))), fitting), 1)


def limits_mib(accessories: Sequence[Service]) -> float:
    """Add up the memory that accessories may use, which is not for the services, in MiB."""
    return sum(_size(one["memory"]) for one in accessories)


def sized(services: Sequence[Service], vcpus: int, memory: int, nginx: str, surge: int) -> list[dict[str, Any]]:
    """Give every service its ``replicas`` and ``threads``, and their ``memory`` and ``cpus`` as Compose writes them.

    What a service says is kept. The rest comes from the machine: as many processes as gunicorn's design page begins
    with, (2 x vCPUs) + 1, shared by all services; of the memory that is left an equal part for each replica, room for
    the surge of a deploy included, rounded down to a power of two; and half of the CPUs each, so that one replica that
    spins does not stop the others.

    ``memory`` is the machine's in MiB, without that of accessories.
    """
    counted = _with_replicas(services, int(vcpus))
    spare = int(memory) - SYSTEM_MIB - _size(nginx) - sum(_limits(one) for one in counted)
    sharing = sum(one["replicas"] for one in counted if not one.get("memory")) + int(surge)
    derived = {"memory": f"{_part(spare / sharing)}m", "cpus": f"{min(vcpus / 2, MOST_CPUS):g}"}
    limited = [one | {key: str(one.get(key) or derived[key]) for key in derived} for one in counted]
    return [one | {"threads": threads(one["memory"], one["cpus"])} for one in limited]


def _with_replicas(services: Sequence[Service], vcpus: int) -> list[dict[str, Any]]:
    given = [int(one["replicas"]) for one in services if one.get("replicas")]
    open_ones = len(services) - len(given)
    processes = min(2 * vcpus + 1, MOST_PROCESSES) - sum(given)
    share = max(processes // open_ones, 1) if open_ones else 0
    return [{**one, "replicas": int(one.get("replicas") or share)} for one in services]


def _limits(service: Service) -> float:
    """Add up the limits that a service gives itself, in MiB."""
    return service["replicas"] * _size(service["memory"]) if service.get("memory") else 0.0


def _part(share: float) -> int:
    """Round down to a power of two: a kernel that keeps 5 % for itself must not change the result."""
    power = 1 << max(int(share), 1).bit_length() - 1
    return min(max(power, LEAST_MEMORY_MIB), MOST_MEMORY_MIB)


def _size(size: object) -> float:
    read = memory_mib(size)
    if read is None:
        raise AnsibleFilterError(f"{size!r} is no memory size: allowed is one such as 128m or 1g")
    return read


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"limits_mib": limits_mib, "memory_mib": memory_mib, "sized": sized}
