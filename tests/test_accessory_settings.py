"""Passwords of databases reach the users and services that need them."""

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from plugins.filter.service_secrets import as_secrets, secret_folders, with_passwords
from tests.project import ACCESSORY, ROOT, SERVICE, load_mapping


def test_password_goes_to_the_user_of_the_server() -> None:
    """Each kind of database has a user of its own, so neither reads the other's password."""
    users = trust_as_template(load_mapping(ROOT / "roles/accessory/vars/main.yml")["__accessory_users"])
    known = {
        "__accessory_kinds": {"postgresql": {"user": 1}, "redis": {"user": 2}},
        "__accessory_kind_of": {"cache": "redis", "db": "postgresql"},
        "__accessory_names": ["cache", "db"],
    }
    owners = Templar(DataLoader(), known).template(users)
    assert owners == {"cache": 2, "db": 1}
    (folder,) = secret_folders(as_secrets([ACCESSORY]), "data", "/opt/data", owners)
    assert folder["path"].startswith("/opt/data/secrets/db-")
    assert (folder["owner"], folder["secrets"]) == (1, {"password": ACCESSORY["password"]})


def test_service_gets_the_passwords_that_it_names() -> None:
    """It gets them beside its own secrets, and the inventory's entry stays as it is."""
    asking = SERVICE | {"accessories": ["db"], "secrets": {"key": "value"}}
    given, other = with_passwords([asking, SERVICE], [ACCESSORY])
    assert given["secrets"] == {"key": "value", "db_password": ACCESSORY["password"]}
    assert asking["secrets"] == {"key": "value"}
    assert other == SERVICE
