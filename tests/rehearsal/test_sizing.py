"""The size of an instance type is enforced on this machine."""

import pytest
from moto.ec2.models.instance_types import INSTANCE_TYPES

from rehearsal import sizing

MEMINFO = "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable: 2 kB\nHugePages_Total: 3\nHugepagesize: 2048 kB\n"
CPUINFO = "".join(
    f"processor\t: {n}\nmodel name\t: x{n}\nphysical id\t: 1\nsiblings\t: 3\ncore id\t\t: {n}\ncpu cores\t: 3\n\n"
    for n in range(3)
)


@pytest.mark.parametrize(("name", "vcpus", "memory"), [("t2.micro", 1, 1024), ("t2.medium", 2, 4096)])
def test_size_comes_from_the_instance_type_data(name: str, vcpus: int, memory: int) -> None:
    assert sizing.size_of(INSTANCE_TYPES[name]) == sizing.Size(vcpus, memory)


@pytest.mark.parametrize(("text", "cpus"), [("", []), ("0", [0]), ("0-2,5\n", [0, 1, 2, 5])])
def test_cpu_lists_are_read_as_the_kernel_writes_them(text: str, cpus: list[int]) -> None:
    assert sizing.parse_cpus(text) == cpus


@pytest.mark.parametrize(
    ("wanted", "taken", "chosen"),
    [(1, [], [3]), (1, ["3"], [2]), (2, ["2,3"], [0, 1]), (1, ["0", "1", "2", "3", "1"], [3]), (8, [], [0, 1, 2, 3])],
)
def test_instances_share_cpus_as_little_as_possible(wanted: int, taken: list[str], chosen: list[int]) -> None:
    assert sizing.choose_cpus(wanted, [0, 1, 2, 3], taken) == chosen


def test_meminfo_tells_the_memory_of_the_type() -> None:
    """Ansible's facts and `free` read this file, and defaults for replicas are derived from it."""
    shown = dict(line.split(":", 1) for line in sizing.meminfo(MEMINFO, 1024).splitlines())
    assert shown["MemTotal"].split() == ["1048576", "kB"]
    assert 0 < int(shown["MemAvailable"].split()[0]) < 1048576
    assert shown["HugePages_Total"].split() == ["0"]
    assert shown["Hugepagesize"].split() == ["2048", "kB"]


def test_cpuinfo_counts_only_the_pinned_cpus_from_zero() -> None:
    """Ansible's facts multiply sockets, cores and threads of this file, whatever the instance may use."""
    first, second, rest = sizing.cpuinfo(CPUINFO, [1, 2]).split("\n\n")
    shown = "processor\t: 0\nmodel name\t: x1\nphysical id\t: 0\nsiblings\t: 2\ncore id\t\t: 0\ncpu cores\t: 2"
    assert first == shown
    assert second.startswith("processor\t: 1\nmodel name\t: x2\n")
    assert rest == ""
