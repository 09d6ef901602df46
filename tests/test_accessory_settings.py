"""Passwords of databases reach the users and services that need them."""

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from plugins.filter.passwords import as_secrets, with_passwords
from tests.project import ACCESSORY, ROOT, SERVICE, load_yaml, tasks


def test_password_goes_to_the_user_of_the_server() -> None:
    """Each kind of database has a user of its own, so neither reads the other's password."""
    (task,) = (one for one in tasks(load_yaml(ROOT / "roles/accessory/tasks/render.yml")) if "secret_files" in one)
    kind_of = {"cache": "redis", "db": "postgresql"}
    known = {"__accessory_kinds": {"postgresql": {"user": 1}, "redis": {"user": 2}}, "__accessory_kind_of": kind_of}
    owners = {
        name: Templar(DataLoader(), known | {"__accessory_item": {"name": name}}).template(
            trust_as_template(task["secret_files"]["owner"])
        )
        for name in kind_of
    }
    assert owners == {"cache": 2, "db": 1}
    assert as_secrets([ACCESSORY]) == [{"name": "db", "secrets": {"password": ACCESSORY["password"]}}]


def test_service_gets_the_passwords_that_it_names() -> None:
    """It gets them beside its own secrets, and the inventory's entry stays as it is."""
    asking = SERVICE | {"accessories": ["db"], "secrets": {"key": "value"}}
    given, other = with_passwords([asking, SERVICE], [ACCESSORY])
    assert given["secrets"] == {"key": "value", "db_password": ACCESSORY["password"]}
    assert asking["secrets"] == {"key": "value"}
    assert other == SERVICE
