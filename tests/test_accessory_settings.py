"""Passwords of databases reach the users and services that need them."""

from plugins.filter.passwords import with_passwords
from roles.accessory.filter_plugins.accessory_settings import as_secrets
from tests.project import ACCESSORY, SERVICE


def test_password_goes_to_the_user_of_the_server() -> None:
    """Each kind of database has a user of its own, so neither reads the other's password."""
    kinds = {"postgresql": {"user": 1}, "redis": {"user": 2}}
    cache = ACCESSORY | {"name": "cache", "kind": "redis"}
    assert [(one["name"], one["user"]) for one in as_secrets([ACCESSORY, cache], kinds)] == [("db", 1), ("cache", 2)]
    assert as_secrets([ACCESSORY], kinds)[0]["secrets"] == {"password": ACCESSORY["password"]}


def test_service_gets_the_passwords_that_it_names() -> None:
    """It gets them beside its own secrets, and the inventory's entry stays as it is."""
    asking = SERVICE | {"accessories": ["db"], "secrets": {"key": "value"}}
    given, other = with_passwords([asking, SERVICE], [ACCESSORY])
    assert given["secrets"] == {"key": "value", "db_password": ACCESSORY["password"]}
    assert asking["secrets"] == {"key": "value"}
    assert other == SERVICE
