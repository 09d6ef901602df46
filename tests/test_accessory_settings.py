"""What databases are started with, and who is handed which password."""

import pytest

from plugins.filter.passwords import with_passwords
from roles.accessory.filter_plugins.accessory_settings import as_secrets, process_limit, server_options
from tests.project import ACCESSORY, SERVICE

MIB_OF = {"kB": 1 / 1024, "MB": 1.0}


def setting(options: list[str], name: str) -> str:
    """Find the value of one of PostgreSQL's options."""
    (value,) = [word.partition("=")[2] for word in options if word.startswith(f"{name}=")]
    return value


def mib(value: str) -> float:
    """Read a size as PostgreSQL does."""
    return int(value[:-2]) * MIB_OF[value[-2:]]


@pytest.mark.parametrize("memory", [96, 128, 256, 1024, 16384])
def test_what_all_sessions_take_together_fits(memory: int) -> None:
    """Where the sum is above the limit, the kernel ends the database when it is busiest."""
    options = server_options("postgresql", memory)
    shared, connections = mib(setting(options, "shared_buffers")), int(setting(options, "max_connections"))
    sorting = connections * mib(setting(options, "work_mem"))
    # Three cleaners run at a time.
    cleaning = 3 * mib(setting(options, "maintenance_work_mem"))
    assert shared + sorting + cleaning <= memory * 0.75
    assert options[::2] == ["-c"] * (len(options) // 2)
    assert process_limit("postgresql", memory) > connections + 10


def test_small_machine_still_has_sessions_for_several_replicas() -> None:
    """Each replica keeps a few open, and a migration wants one as well."""
    assert setting(server_options("postgresql", 96), "max_connections") == "20"
    assert setting(server_options("postgresql", 65536), "max_connections") == "100"


def test_redis_leaves_room_for_the_copy() -> None:
    """A process that writes a snapshot shares its memory until something changes."""
    assert server_options("redis", 64) == ["--maxmemory", "32mb"]
    assert process_limit("redis", 64) < 100


def test_password_goes_to_the_user_of_the_server() -> None:
    """Each kind has a user of its own, so neither reads the other's."""
    kinds = {"postgresql": {"user": 1}, "redis": {"user": 2}}
    cache = ACCESSORY | {"name": "cache", "kind": "redis"}
    assert [(one["name"], one["user"]) for one in as_secrets([ACCESSORY, cache], kinds)] == [("db", 1), ("cache", 2)]
    assert as_secrets([ACCESSORY], kinds)[0]["secrets"] == {"password": ACCESSORY["password"]}


def test_service_gets_the_passwords_that_it_names() -> None:
    """Beside its own secrets; the inventory's entry stays as it is."""
    asking = SERVICE | {"accessories": ["db"], "secrets": {"key": "value"}}
    given, other = with_passwords([asking, SERVICE], [ACCESSORY])
    assert given["secrets"] == {"key": "value", "db_password": ACCESSORY["password"]}
    assert asking["secrets"] == {"key": "value"}
    assert other == SERVICE
