"""The defaults of a service follow from the machine, and always fit into it."""

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter.routes import completed
from plugins.filter.sizes import LEAST_MEMORY_MIB, MOST_MEMORY_MIB, SYSTEM_MIB, memory_mib, sized, threads

APP = {"name": "app", "context": "app", "path": "/", "server": "gunicorn"}
API = APP | {"name": "api", "path": "/api"}
T2_NANO, T2_MICRO, T2_MEDIUM, LARGE = (1, 512), (1, 1024), (2, 4096), (64, 262144)


def sizes(machine: tuple[int, int], *services: dict[str, Any], nginx: str = "64m", surge: int = 1) -> list[list[Any]]:
    """Return replicas, memory and cpus of every service."""
    return [[one["replicas"], one["memory"], one["cpus"]] for one in sized(services or (APP,), *machine, nginx, surge)]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (T2_NANO, [3, "64m", "0.5"]),
        (T2_MICRO, [3, "128m", "0.5"]),
        (T2_MEDIUM, [5, "512m", "1"]),
        (LARGE, [12, "512m", "1"]),
    ],
)
def test_machine_decides(machine: tuple[int, int], expected: list[Any]) -> None:
    """There are as many processes as gunicorn's page recommends for all CPUs, and never more than a replica can use."""
    assert sizes(machine) == [expected]


@pytest.mark.parametrize("machine", [T2_MICRO, (1, 2048), T2_MEDIUM], ids=str)
def test_what_the_kernel_keeps_does_not_matter(machine: tuple[int, int]) -> None:
    """Preflight gets the type's memory from EC2 and the role the machine's, which is up to 7 % less."""
    vcpus, memory = machine
    assert sizes((vcpus, round(memory * 0.93))) == sizes(machine)


def test_what_a_service_says_is_kept() -> None:
    """This includes numbers, which YAML makes of it; Compose gets text."""
    own = APP | {"replicas": "4", "memory": "96m", "cpus": 0.25}
    assert sizes(T2_MICRO, own) == [[4, "96m", "0.25"]]
    assert sizes(T2_MICRO, APP | {"memory": "256m"}) == [[3, "256m", "0.5"]]
    assert sizes(T2_MEDIUM, APP | {"replicas": 2}) == [[2, "512m", "1"]]


def test_services_share_the_machine() -> None:
    """The processes are counted for the whole machine, and what one service takes is not left to the others."""
    assert sizes(T2_MEDIUM, APP, API) == [[2, "512m", "1"], [2, "512m", "1"]]
    assert sizes(T2_MEDIUM, APP | {"replicas": 4, "memory": "768m"}, API) == [[4, "768m", "1"], [1, "256m", "1"]]
    # Everybody serves, however small the machine is.
    assert [replicas for replicas, *_ in sizes(T2_MICRO, APP | {"replicas": 9}, API)] == [9, 1]


@pytest.mark.parametrize(
    ("memory", "cpus", "expected"),
    [
        ("128m", "0.5", 4),
        ("128m", 0.1, 4),
        ("512m", "1", 4),
        ("512m", "1.5", 8),
        ("512m", "2", 8),
        # 24 MiB beside what an idle replica takes, for 4 MiB each.
        ("64m", "4", 6),
        ("48m", "1", 2),
        ("32m", "1", 1),
        ("6m", "1", 1),
    ],
)
def test_threads_follow_from_what_a_replica_has(memory: str, cpus: object, expected: int) -> None:
    """They are enough to use its part of a CPU, and no more than its memory allows, but at least one."""
    assert threads(memory, cpus) == expected


def test_every_service_is_complete() -> None:
    """The result has every value that the entry leaves out."""
    (short,) = sized(completed([{"name": "app", "context": "app"}], 0), *T2_MICRO, "64m", 1)
    assert {key: short[key] for key in ("app", "server", "timeout_seconds", "threads")} == {
        "app": "wsgi:app",
        "server": "gunicorn",
        "timeout_seconds": 30,
        "threads": 4,
    }
    (own,) = sized(
        completed([APP | {"app": "shop:app", "server": "granian", "timeout_seconds": 5}], 0), *T2_MICRO, "64m", 1
    )
    assert [own[key] for key in ("app", "server", "timeout_seconds")] == ["shop:app", "granian", 5]


@pytest.mark.parametrize("machine", [T2_NANO, T2_MICRO, T2_MEDIUM, LARGE], ids=str)
@pytest.mark.parametrize("services", [(APP,), (APP, API)], ids=["one", "two"])
def test_derived_limits_fit(machine: tuple[int, int], services: tuple[dict[str, Any], ...]) -> None:
    """Preflight must never refuse a default that nobody asked for."""
    total = sum(replicas * (memory_mib(memory) or 0) for replicas, memory, _ in sizes(machine, *services))
    assert total + 64 + SYSTEM_MIB <= machine[1]


def test_surge_and_nginx_have_room_too() -> None:
    """Otherwise a deploy on a full machine would make the kernel kill processes."""
    assert sizes(T2_MICRO, surge=10) == [[3, f"{LEAST_MEMORY_MIB}m", "0.5"]]
    assert sizes(T2_MICRO, nginx="512m") == [[3, f"{LEAST_MEMORY_MIB}m", "0.5"]]
    assert sizes(LARGE, surge=50) == [[12, f"{MOST_MEMORY_MIB}m", "1"]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [("128m", 128), ("1g", 1024), ("512k", 0.5), ("128M", 128), ("64mb", 64), ("2GB", 2048)],
)
def test_memory_is_read_as_compose_does(size: str, expected: float) -> None:
    """A size that is misread makes the sum of all limits wrong."""
    assert memory_mib(size) == expected


@pytest.mark.parametrize("size", ["", "128", "0m", "-1m", "1.5g", "lots", None, "128 m"], ids=repr)
def test_what_is_no_size_is_not_guessed(size: object) -> None:
    """Compose would read 128 as bytes."""
    assert memory_mib(size) is None
    with pytest.raises(AnsibleFilterError, match="no memory size"):
        sized([APP], 1, 1024, str(size), 1)
