"""Databases are described in full, with a real password, and not once on each of several machines."""

import secrets
from typing import Any

import pytest

from plugins.filter.service_secrets import as_secrets
from plugins.filter.sizes import SYSTEM_MIB
from preflight.accessories import bad_accessories, scattered_data
from preflight.secrets import readable_secrets
from preflight.services import no_room
from preflight.variables import known_variables
from tests.preflight.input import service, stack
from tests.preflight.test_secrets import KEPT_IN
from tests.project import ACCESSORY, ROOT

OPTION = known_variables(ROOT / "roles")["accessory"]["accessory_services"]
STRONG = secrets.token_hex(16)
FROM_VAULT = "{{ vault_db_password }}"


def accessory(**changes: Any) -> dict[str, Any]:
    return ACCESSORY | changes


def problems(*accessories: dict[str, Any], services: object = ()) -> list[str]:
    return list(bad_accessories(list(accessories), list(services) if services == () else services, OPTION))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *(("kind", value, "postgresql or redis") for value in ("mysql", "", None, "PostgreSQL")),
        *(("memory", value, "a size such as 256m or 1g, at least 96m") for value in ("lots", 256, "95m", None)),
    ],
)
def test_bad_value_is_refused(key: str, value: object, allowed: str) -> None:
    said = f"accessory_services[0] (db): {key} is {value!r}: allowed is {allowed}"
    assert problems(accessory(**{key: value})) == [said]


def test_good_ones_are_allowed() -> None:
    cache = accessory(name="redis", kind="redis", memory="16m")
    assert problems(accessory(), cache, services=[service(accessories=["db"])]) == []
    assert problems() == []


@pytest.mark.parametrize("name", ["DB", "my_db", "", "1db", "d" * 32, None, "localhost", "nginx"])
def test_name_has_to_serve_as_host_name(name: str | None) -> None:
    (problem,) = problems(accessory(name=name))
    assert problem.startswith(f"accessory_services[0] ({name}): name is {str(name)!r}: allowed are small letters")


def test_two_of_one_name_and_a_misspelt_key_are_refused() -> None:
    assert problems(accessory(), accessory(kind="redis")) == ["accessory_services: two accessories have the name db"]
    said = "accessory_services[0] (db): memmory is no key of an accessory; did you mean memory?"
    assert problems(accessory(memmory="1g")) == [said]


@pytest.mark.parametrize(
    "value", [None, "", "changeme", "x9Q-3fk", 1234567890, "two words of it", "line\nbreak-here", "é" * 9]
)
def test_password_that_is_none_is_refused_and_not_shown(value: object) -> None:
    (problem,) = problems(accessory(password=value))
    assert problem.startswith("accessory_services[0] (db): the secret password ")
    assert not value or str(value) not in problem


def test_missing_keys_are_named() -> None:
    said = problems({"name": "db"})
    assert [text.split(": ", 1)[1][:20] for text in said] == ["kind is None: allowe", "the secret password "]


@pytest.mark.parametrize("value", ["db", {"name": "db"}, ["db"], None])
def test_accessories_have_to_be_a_list_of_mappings(value: object) -> None:
    (problem,) = bad_accessories(value, [], OPTION)
    assert problem == "accessory_services has to be a list of accessories; [] for none"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"accessories": ["dbb"]},
            "accessories has 'dbb', which accessory_services does not describe: allowed are those that it does (db)",
        ),
        ({"accessories": ["db", "db"]}, "accessories has 'db' twice: allowed is once"),
        (
            {"accessories": ["db"], "secrets": {"db_password": STRONG}},
            "secrets has db_password, which is the password of the accessory db: choose another name",
        ),
    ],
)
def test_service_and_databases_have_to_fit(changes: dict[str, Any], said: str) -> None:
    (problem,) = problems(accessory(), services=[service(**changes)])
    assert problem.startswith(f"stack_services[0] (app): {said}")


def test_name_of_a_service_is_taken() -> None:
    said = "a service has the name app too: choose another one, because both are reached by it"
    assert problems(accessory(name="app"), services=[service()]) == [f"accessory_services[0] (app): {said}"]


@pytest.mark.parametrize("services", [None, "app", [None], [{"accessories": 3}]])
def test_services_that_are_wrong_are_for_others_to_refuse(services: object) -> None:
    assert problems(accessory(), services=services) == []


def test_password_that_stands_in_the_inventory_is_refused() -> None:
    written = [accessory(password=FROM_VAULT), accessory(name="cache", password=STRONG)]
    (problem,) = readable_secrets(as_secrets(written), lambda value: "{{" in str(value), "accessory_services")
    assert problem == (
        "accessory_services[1] (cache): the secret password can be read by whoever reads the inventory: "
        f"write a variable in its place; {KEPT_IN}"
    )


def test_memory_of_accessories_counts() -> None:
    needed = 3 * 128 + 64 + 256 + SYSTEM_MIB
    variables = stack(accessory_services=[accessory()])
    assert list(no_room(variables, "this machine", 2, needed)) == []
    (problem,) = no_room(variables, "this machine", 2, needed - 1)
    assert "nginx 64m, db 256m, 3 x 128m of app are 704 MiB" in problem


def test_each_instance_with_a_database_of_its_own_is_refused() -> None:
    """Visitors would see other data on each instance, which nobody would notice at first."""
    assert list(scattered_data(stack(accessory_services=[accessory()]))) == []
    assert list(scattered_data(stack(ec2_count=2))) == []
    (problem,) = scattered_data(stack(accessory_services=[accessory()], ec2_count="2"))
    assert problem.startswith("ec2_count is 2: each instance would have its own db (accessory_services), and visitors")
    assert problem.endswith(": allowed is 1, or a database elsewhere")
