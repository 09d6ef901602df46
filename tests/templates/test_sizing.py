"""The settings of databases follow from their memory."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bench.render import Renderer
from plugins.lookup.project import databases

MIB_OF = {"kB": 1 / 1024, "MB": 1.0}

Sizing = Callable[[str, float], dict[str, Any]]


@pytest.fixture
def sizing(render: Renderer) -> Sizing:
    """Render the settings for a database with so many MiB of memory."""

    def read(kind: str, memory: float) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load(render("accessory", databases()[kind]["sizing"], memory=memory))
        return content

    return read


def setting(options: list[str], name: str) -> str:
    (value,) = [word.partition("=")[2] for word in options if word.startswith(f"{name}=")]
    return value


def mib(value: str) -> float:
    return int(value[:-2]) * MIB_OF[value[-2:]]


@pytest.mark.parametrize("memory", [96, 128, 256, 1024, 16384])
def test_what_all_sessions_take_together_fits(sizing: Sizing, memory: int) -> None:
    """Where the sum is above the limit, the kernel ends the database when it is busiest."""
    sized = sizing("postgresql", memory)
    options = sized["command"]
    shared, connections = mib(setting(options, "shared_buffers")), int(setting(options, "max_connections"))
    sorting = connections * mib(setting(options, "work_mem"))
    # Three cleaners run at a time.
    cleaning = 3 * mib(setting(options, "maintenance_work_mem"))
    assert shared + sorting + cleaning <= memory * 0.75
    assert options[::2] == ["-c"] * (len(options) // 2)
    assert sized["pids"] > connections + 10


@pytest.mark.parametrize(("memory", "connections"), [(96, "20"), (256, "32"), (65536, "100")])
def test_sessions_are_enough_for_several_replicas(sizing: Sizing, memory: int, connections: str) -> None:
    """Each replica keeps a few open, and a migration wants one as well."""
    assert setting(sizing("postgresql", memory)["command"], "max_connections") == connections


def test_redis_leaves_room_for_the_copy(sizing: Sizing) -> None:
    """A process that writes a snapshot shares its memory until something changes."""
    assert sizing("redis", 64)["command"] == ["--maxmemory", "32mb"]
    assert sizing("redis", 64)["pids"] < 100
