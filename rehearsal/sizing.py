"""What an instance type means on this machine: CPUs, memory and what /proc shows inside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KIB_PER_MIB = 1024

CPU_NUMBER = re.compile(r"^((processor|physical id|siblings|core id|cpu cores)\s*:\s*)\d+$", re.MULTILINE)
"""The lines of /proc/cpuinfo that count or number processors."""


@dataclass(frozen=True)
class Size:
    """An instance type's size, with its memory in MiB."""

    vcpus: int
    memory: int


def size_of(description: Mapping[str, Any]) -> Size:
    """Read the size out of an element of ``InstanceTypes``, from an answer of DescribeInstanceTypes.

    Raises:
        KeyError: The description has no such figures.
    """
    return Size(int(description["VCpuInfo"]["DefaultVCpus"]), int(description["MemoryInfo"]["SizeInMiB"]))


def parse_cpus(text: str) -> list[int]:
    """Read the CPU numbers of a kernel CPU list, for example ``0-2,5``."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def available_cpus() -> list[int]:
    """List the numbers of the CPUs that this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def choose_cpus(wanted: int, available: Sequence[int], taken: Iterable[str]) -> list[int]:
    """Choose the CPUs that the fewest other instances use: as many as wanted, or all when there are fewer.

    ``available`` are CPU numbers of this machine, and ``taken`` are CPU lists of the other instances.
    """
    load = dict.fromkeys(available, 0)
    for other in taken:
        for cpu in parse_cpus(other):
            if cpu in load:
                load[cpu] += 1
    # From the top down: this machine's own interrupts and build steps favour its first CPU.
    quietest = sorted(available, key=lambda cpu: (load[cpu], -cpu))
    return sorted(quietest[: max(wanted, 1)])


def meminfo(machine: str, memory: int) -> str:
    """Write the /proc/meminfo of an instance from the machine's own: the same lines, with the figures of the type.

    ``memory`` is that of the instance type in MiB.
    """
    total = memory * KIB_PER_MIB
    shown = {"MemTotal": total, "MemFree": total * 7 // 10, "MemAvailable": total * 8 // 10, "Cached": total // 10}
    lines = []
    for line in machine.splitlines():
        key, _, value = line.partition(":")
        unit = " kB" if value.endswith("kB") else ""
        # Fixed properties of the kernel stay; every other counter would be the whole machine's.
        keep = key in {"Hugepagesize", "VmallocTotal"}
        lines.append(line if keep else f"{key + ':':<16}{shown.get(key, 0):>8}{unit}")
    return "\n".join(lines) + "\n"


def cpuinfo(machine: str, cpus: Sequence[int]) -> str:
    """Write the /proc/cpuinfo of an instance from the machine's own, with processors numbered from 0.

    ``cpus`` are the numbers of those that the instance may use.
    """
    blocks: list[str] = []
    for block in machine.strip().split("\n\n"):
        number = re.search(r"^processor\s*:\s*(\d+)$", block, re.MULTILINE)
        if number is None:
            blocks.append(block)  # arm64 ends with a block about the board
        elif int(number[1]) in cpus:
            blocks.append(_renumbered(block, len(blocks), len(cpus)))
    return "\n\n".join(blocks) + "\n\n"


def _renumbered(block: str, index: int, count: int) -> str:
    """Show a processor as one core of one socket: Ansible multiplies sockets, cores and threads."""
    shown = {"processor": index, "core id": index, "physical id": 0, "siblings": count, "cpu cores": count}

    def line(match: re.Match[str]) -> str:
        return f"{match[1]}{shown[match[2]]}"

    return CPU_NUMBER.sub(line, block)
