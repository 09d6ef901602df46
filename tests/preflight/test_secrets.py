"""Secrets have to exist, be encrypted and not be placeholders, and no message shows one."""

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from preflight.secrets import AS_TEXT, changed_secrets, readable_secrets, readable_vaults, weak_passwords
from preflight.services import STACK_ENVIRONMENT, bad_services
from preflight.variables import known_variables
from tests.preflight.input import ansible, free_port, service
from tests.project import ACCESSORY, ROOT, load_mapping

SERVICES_OPTION = known_variables(ROOT / "roles")["stack"]["stack_services"]
KEPT_IN = "a file that ansible-vault encrypted keeps it: see docs/security.md"
GUNICORN_ARGS = "allowed are options other than --bind and --config, and a port of the service"
STRONG = secrets.token_hex(16)


def problems(**changes: Any) -> list[str]:
    """Check a service that is valid except for the changes."""
    return list(bad_services([service(**changes)], ROOT, SERVICES_OPTION))


@pytest.mark.parametrize(
    "value",
    [
        "8 letter",
        STRONG * 2,
        "amqp://u:p@exchange-in.corp.example/",
        "postgres://app@db/app?password=$1",
        "a\nb\nc\nd\ne",
    ],
)
def test_secret_of_any_kind_is_allowed(value: str) -> None:
    assert problems(secrets={"secret_key": value, "TLS.key-2": value}) == []


@pytest.mark.parametrize("value", [None, ""])
def test_secret_without_a_value_is_refused(value: str | None) -> None:
    """The app would start, and sign its sessions with an empty key."""
    expected = f"stack_services[0] (app): the secret secret_key has no value: {KEPT_IN}"
    assert problems(secrets={"secret_key": value}) == [expected]


@pytest.mark.parametrize(
    "value",
    [
        *("changeme", "CHANGE_ME", "change-me-please", "ChangeThis", "CHANGEME_123"),
        *("replace me", "placeholder", "put-it-here"),
        *("your_secret_key", "your-db-password", "<a long random string>", "xxxxxxxxxx", "********", "password"),
        *("secret", "12345678", "letmein"),
    ],
)
def test_placeholder_is_refused(value: str) -> None:
    (problem,) = problems(secrets={"secret_key": value})
    said = "the secret secret_key is still a placeholder: give it its own value"
    assert problem.startswith(f"stack_services[0] (app): {said}")


@pytest.mark.parametrize("value", ["x9Q-3fk", 12345678901234, True, ["a", "b"]])
def test_value_that_is_short_or_no_text_is_refused_and_not_shown(value: object) -> None:
    """YAML makes numbers and truth values of text without quotes, and a message must not show the value."""
    (problem,) = problems(secrets={"secret_key": value})
    assert "the secret secret_key " in problem
    assert "allowed " in problem
    assert str(value) not in problem


@pytest.mark.parametrize("name", ["", "../passwd", "a/b", ".hidden", "a b", "a" * 65, "é"])
def test_name_of_a_secret_has_to_be_a_file_name(name: str) -> None:
    (problem,) = problems(secrets={name: STRONG})
    assert problem.startswith(f"stack_services[0] (app): the secret {name!r} names a file: allowed are letters")


@pytest.mark.parametrize("value", ["secret_key", ["secret_key"], None])
def test_secrets_have_to_be_a_mapping(value: object) -> None:
    said = "secrets is no mapping: allowed are names with their values"
    assert problems(secrets=value) == [f"stack_services[0] (app): {said}"]


@pytest.mark.parametrize(
    "value",
    ["", "Europe/Berlin", "costs $5 and 100%", "3", "line\nbreak", '"quoted"', "\U0001f680", "--threads=8 --backlog=9"],
)
def test_environment_of_any_text_is_allowed(value: str) -> None:
    assert problems(environment={"MOTTO": value, "_a1": value, "GUNICORN_CMD_ARGS": value}) == []


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        *(({name: "x"}, f" has {name!r}: allowed are letters, digits and _, no digit first") for name in ("1A", "A-B")),
        *(
            (
                {"GUNICORN_CMD_ARGS": value},
                f" has GUNICORN_CMD_ARGS with {value!r}, and nginx would not find the server: {GUNICORN_ARGS}",
            )
            for value in ("--bind=0.0.0.0:80", "--threads 8 -b :80", "--config other.py")
        ),
        ({"A": "x\0"}, " has A with a NUL character: allowed is any other text"),
        *(
            (yaml.safe_load(written), f" has A with {read}, which is no text: {AS_TEXT}")
            for written, read in (
                *(("A: yes", "True"), ("A: 1.50", "1.5"), ("A: 22:30", "1350"), ("A: 0644", "420"), ("A: 007", "7")),
                *(("A: 8080", "8080"), ("A: ~", "None"), ("A: 2026-11-30", "datetime.date(2026, 11, 30)")),
            )
        ),
        *(
            (yaml.safe_load(f"{written}: x"), f" has the name {read}, which is no text: put quotes around it")
            for written, read in (("YES", "True"), ("off", "False"), ("1", "1"))
        ),
        ({"PORT": "80"}, f" has PORT, which the stack sets itself; so it does {', '.join(STACK_ENVIRONMENT)}"),
        *(
            ({"TZ": zone}, f" has TZ with {zone!r}: allowed is the name of a time zone, such as Europe/Berlin")
            for zone in ("Berlin", "Europe/Berln", "CEST", "europe/berlin", "")
        ),
        (["A=b"], " is no mapping: allowed are names with their values"),
    ],
)
def test_environment_that_would_not_arrive_is_refused(environment: object, said: str) -> None:
    """YAML changes some values, and of two values for one name only one would arrive."""
    assert problems(environment=environment) == [f"stack_services[0] (app): environment{said}"]


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "US/Eastern", "Asia/Calcutta", "CET", "UTC", "EST5EDT", "<+0330>-3:30"]
)
def test_time_zone_is_known(zone: str) -> None:
    assert problems(environment={"TZ": zone}) == []


def test_secret_that_stands_in_the_inventory_is_refused() -> None:
    written = [service(secrets={"key": "{{ vault_key }}", "other": STRONG, "empty": ""})]
    (problem,) = readable_secrets(written, lambda value: "{{" in str(value))
    said = f"the secret other can be read by whoever reads the inventory: write a variable in its place; {KEPT_IN}"
    assert problem == f"stack_services[0] (app): {said}"


@pytest.mark.parametrize("services", [None, "{{ others }}", [None], [{"secrets": []}]])
def test_services_that_are_no_services_are_for_others_to_refuse(services: object) -> None:
    assert list(readable_secrets(services, lambda _: False)) == []


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("group_vars/all/vault.yml", True),
        ("group_vars/app/vault", True),
        ("host_vars/one/my_Vault.yaml", True),
        ("group_vars/all/vault.yml.old", False),
        ("group_vars/all/ec2.yml", False),
        ("vault.example.yml", False),
    ],
)
def test_vault_that_was_not_encrypted_is_refused(tmp_path: Path, name: str, refused: bool) -> None:
    """Ansible reads it without a warning, and git commits it."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("vault_key: abc\n", encoding="utf-8")
    assert list(readable_vaults(tmp_path)) == [f"{file} is not encrypted: ansible-vault encrypt {file}"] * refused
    file.write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n", encoding="utf-8")
    assert list(readable_vaults(tmp_path)) == []


def test_short_vault_password_is_refused() -> None:
    """Whoever copies an encrypted file can try passwords at home."""
    (problem,) = weak_passwords([("default", b"fifteen letters"), ("prod", b"fourteenletter\n")])
    assert problem.startswith("the vault password (prod) has 14 characters: allowed are 15 or more; a longer one comes")


def test_example_is_one_that_preflight_refuses() -> None:
    """Whoever copies it and forgets to change it must not deploy with it."""
    example = load_mapping(ROOT / "inventories/vault.example.yml")
    assert example
    assert all(name.startswith("vault_") for name in example)
    assert all(len(problems(secrets={name: value})) == 1 for name, value in example.items())


@pytest.mark.parametrize(
    ("value", "is_refused"),
    [
        *((one, True) for one in ("x{{7}}", "x{#y#}", "x{%Z", "{{ other }}{{7}}", "{{ nobody }}", "x{{")),
        *(
            (one, False)
            for one in ("{{ other }}", "u:{{ other }}@h", "{{ lookup('file', '/x') }}", "{% raw %}{{7}}{% endraw %}")
        ),
    ],
)
def test_template_that_is_meant_is_no_accident(value: str, is_refused: bool) -> None:
    entries = [service(secrets={"key": "{{ my_key }}"})]
    variables = {"my_key": value, "other": "abc"}
    found = changed_secrets(entries, variables, lambda one: "{" in str(one), "stack_services")
    assert len(list(found)) == is_refused


class Inventory:
    def __init__(self, folder: Path) -> None:
        self.home = folder / "ansible"
        self.vault = folder / "group_vars/all/vault.yml"
        self.vault.parent.mkdir(parents=True)
        (folder / "hosts.yml").write_bytes((ROOT / "inventories/local/hosts.yml").read_bytes())
        services = [service(secrets={"secret_key": "{{ vault_app_secret_key }}"})]
        content = json.dumps({"stack_services": services, "stack_port": free_port(), "stack_address": "127.0.0.1"})
        (folder / "group_vars/all/stack.yml").write_text(content, encoding="utf-8")
        self.hosts = folder / "hosts.yml"

    def write_text(self, password: str, content: str) -> Path:
        """Encrypt the vault with this text in it, and return the file with its password."""
        key = self.vault.parents[2] / "password"
        key.write_text(password, encoding="utf-8")
        self.vault.write_bytes(VaultLib().encrypt(content, VaultSecret(password.encode())))
        return key

    def check(self, key: Path | None) -> tuple[int, str]:
        """Run the preflight playbook, with the password in a file, and return its exit status and output."""
        arguments = ["--vault-password-file", str(key)] if key else []
        done = ansible(self.home, "ansible-playbook", "playbooks/preflight.yml", "-i", str(self.hosts), *arguments)
        return done.returncode, done.stdout


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path)


ACCIDENT = "{{7}}{#x#}{%Z"


def test_playbook_takes_a_secret_of_any_text_that_is_marked(inventory: Inventory) -> None:
    """And a database whose password is in the vault."""
    services = [service(accessories=["db"], pre_deploy=["true"], secrets={"secret_key": "{{ vault_app_secret_key }}"})]
    database = ACCESSORY | {"password": "{{ vault_db_password }}"}
    content = json.dumps({"accessory_services": [database], "stack_services": services})
    (inventory.vault.parent / "with_database.yml").write_text(content, encoding="utf-8")
    text = f'vault_app_secret_key: !unsafe "{STRONG}{ACCIDENT}"\nvault_db_password: {STRONG}\n'
    status, said = inventory.check(inventory.write_text(STRONG, text))
    assert status == 0, said
    assert STRONG not in said


@pytest.mark.parametrize(
    ("password", "variables", "sentences"),
    [
        # Ansible would change it silently, or show a part of it in an error.
        (
            STRONG,
            {"vault_app_secret_key": f"{STRONG}{ACCIDENT}{STRONG}"},
            ["the secret secret_key comes from vault_app_secret_key, which has {{, {% or {# in it"],
        ),
        # Ansible's own message would not say which service lacks it.
        (
            "short",
            {"vault_other": STRONG},
            [
                f"- stack_services[0] (app): the secret secret_key has no value: {KEPT_IN}",
                "- the vault password (default) has 5 characters: allowed are 15 or more",
            ],
        ),
    ],
)
def test_playbook_refuses_what_is_wrong_in_the_vault(
    inventory: Inventory, password: str, variables: dict[str, str], sentences: list[str]
) -> None:
    status, said = inventory.check(inventory.write_text(password, json.dumps(variables)))
    assert status != 0
    assert [sentence for sentence in sentences if sentence not in said] == [], said
    assert "changed=0" in said
    assert STRONG not in said
    assert ACCIDENT not in said


def test_playbook_refuses_a_vault_that_is_open(inventory: Inventory) -> None:
    inventory.vault.write_text(f"vault_app_secret_key: {STRONG}\n", encoding="utf-8")
    status, said = inventory.check(None)
    assert status != 0
    assert f"- {inventory.vault} is not encrypted: ansible-vault encrypt {inventory.vault}" in said
    assert STRONG not in said


@pytest.mark.parametrize(
    ("password", "message"),
    [
        (None, "{} is encrypted, and no vault password was given: add --ask-vault-pass or"),
        ("another", "The vault password that was given does not open {}: give the right one with --ask-vault-pass or"),
    ],
)
def test_vault_without_its_password_ends_the_run_in_plain_words(
    inventory: Inventory, tmp_path: Path, password: str | None, message: str
) -> None:
    inventory.write_text(STRONG, json.dumps({"vault_app_secret_key": STRONG}))
    wrong = tmp_path / "wrong"
    wrong.write_text(str(password), encoding="utf-8")
    status, said = inventory.check(wrong if password else None)
    assert status != 0
    assert message.format(inventory.vault) in said
    assert "TASK" not in said
    assert "Traceback" not in said
