"""A secret is in its file and nowhere else, and a changed one goes live like any other change.

Two canaries are deployed with Ansible's most verbose output: one as a secret and one as a plain environment variable.
The search that must not find the first has to find the second.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from testinfra.host import Host

from bench.app import services
from bench.playbook import Outcome, playbook
from bench.stack import Stack
from tests.project import ROOT

# Three deploys, and a search of the whole disk.
pytestmark = pytest.mark.long

CANARIES = "/root/canaries"
"""Folder with the texts to search for, and with what was seen of them during the deploy."""

EXCLUDED = f"--exclude-dir=proc --exclude-dir=sys --exclude-dir=merged --exclude-dir={Path(CANARIES).name}"

PRINTED = {
    "containers": "docker ps --all --quiet | xargs docker inspect",
    "images": "docker images --quiet | xargs docker inspect",
    "history": "docker images --quiet | xargs --max-args=1 docker history --no-trunc",
    "log": "docker ps --all --quiet | xargs --max-args=1 docker logs 2>&1",
    "journal": "journalctl --no-pager --all --output=verbose",
    "processes": "ps axeww; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null",
    "processes during the deploy": f"cat {CANARIES}/seen",
}
"""Commands by place that show where a secret could be read on the instance, beside its files."""

ANSIBLE_TEMPORARY = "/root/.ansible/tmp /home/*/.ansible/tmp /tmp/ansible* /var/tmp/ansible*"
OWN_COMMAND = "*legacy.command_payload*"
"""Files of the command that does the search."""


@dataclass
class Deployed:
    """A deploy with -vvv --diff.

    Attributes:
        said: What the deploy printed.
        secret: The value that nobody may see.
        plain: The value that everybody may see.
        left: Folder with all that Ansible left on the controller, its cache of facts included.
    """

    host: Host
    said: str
    secret: str
    plain: str
    left: Path

    def find(self, canary: str) -> dict[str, list[str]]:
        """Search for a canary everywhere, and return what was found by place; places without a match are left out."""
        places = {
            "output": [line for line in self.said.splitlines() if canary in line],
            "controller": [str(path) for path in self.left.rglob("*") if path.is_file() and contains(path, canary)],
            **{
                place: [line.removesuffix(f":{canary}") for line in lines if line.endswith(canary)]
                for place, lines in self.on_instance.items()
            },
        }
        return {place: found for place, found in places.items() if found}

    @cached_property
    def on_instance(self) -> dict[str, list[str]]:
        """The lines of the instance, by place, that contain either canary; each ends with the one that it has."""
        grep = f"grep --only-matching --text --fixed-strings --file={CANARIES}/secret --file={CANARIES}/plain"
        # Each file of the machine: the engine's own, logs, temporary ones. What is merged is elsewhere in parts.
        disk = f"{grep} --recursive --devices=skip {EXCLUDED} / 2>/dev/null"
        commands = {place: f"({command}) | {grep}" for place, command in PRINTED.items()}
        return {place: self.lines(command) for place, command in ({"disk": disk} | commands).items()}

    def lines(self, command: str) -> list[str]:
        """Run a shell command of the search, whatever its exit status: grep exits with 1 when it finds nothing."""
        printed: str = self.host.run(command).stdout
        return printed.splitlines()


def contains(path: Path, text: str) -> bool:
    """Tell whether a file has a text in it."""
    return text.encode() in path.read_bytes()


def canary() -> str:
    """Make a random value of letters and digits that occurs nowhere else."""
    return f"CANARY{secrets.token_hex(16)}"


def deploy(folder: Path, secret: str, plain: str, *arguments: str) -> Outcome:
    """Deploy the sample app with a secret from a real vault.

    ``folder`` takes the vault and its password. ``secret`` is the value of the secret and ``plain`` that of an
    environment variable; ``arguments`` are further ones of ansible-playbook.
    """
    folder.mkdir(exist_ok=True)
    password, vault = folder / "password", folder / "vault.json"
    password.write_text(secrets.token_hex(16))
    vault.write_text(json.dumps({"vault_app_secret_key": secret}))
    tool = str(Path(sys.executable).with_name("ansible-vault"))
    subprocess.run([tool, "encrypt", "--vault-password-file", str(password), str(vault)], check=True, timeout=60)
    given = {"secrets": {"secret_key": "{{ vault_app_secret_key }}"}, "environment": {"PLAIN": plain}}
    entries = json.dumps({"stack_services": services(ROOT / "app", **given)})
    opened = ("--vault-password-file", str(password), "--extra-vars", f"@{vault}")
    return playbook("playbooks/deploy.yml", "--extra-vars", entries, *opened, *arguments)


@pytest.fixture(scope="module")
def deployed(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Deploy two canaries, and watch the instance's processes meanwhile."""
    left = tmp_path_factory.mktemp("left")
    (left / "tmp").mkdir()
    secret, plain = canary(), canary()
    host.check_output(f"install --directory --mode=0700 {CANARIES}")
    for name, value in {"secret": secret, "plain": plain}.items():
        # In two parts: Ansible writes the command that it runs for this test into the journal.
        host.check_output(f"printf %s%s {value[:20]} {value[20:]} > {CANARIES}/{name}")
    watch = (
        f"while sleep 0.2; do ps axeww | grep --fixed-strings --file={CANARIES}/secret --file={CANARIES}/plain; done"
    )
    host.check_output(
        f"systemd-run --unit=canaries --property=StandardOutput=append:{CANARIES}/seen sh -c {shlex.quote(watch)}"
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANSIBLE_HOME", str(left / "home"))
            patch.setenv("ANSIBLE_LOCAL_TEMP", str(left / "local"))
            patch.setenv("ANSIBLE_CACHE_PLUGIN", "jsonfile")
            patch.setenv("ANSIBLE_CACHE_PLUGIN_CONNECTION", str(left / "facts"))
            patch.setenv("TMPDIR", str(left / "tmp"))
            outcome = deploy(tmp_path_factory.mktemp("vault"), secret, plain, "-vvv", "--diff")
        assert outcome.ok, outcome.said[-4000:]
        host.check_output("systemctl stop canaries")
        yield Deployed(host, outcome.said, secret, plain, left)
    finally:
        host.run(f"systemctl stop canaries; rm --recursive {CANARIES}")


def visits(stack: Stack, cookie: str) -> tuple[str, int, str]:
    """Open the page with a visitor's cookie, which may be empty.

    Returns:
        Which container answered, how many visits it counted, and the new cookie.
    """
    with stack.connect() as connection:
        connection.request("GET", "/", headers={"Cookie": cookie} if cookie else {})
        response = connection.getresponse()
        page = response.read().decode()
    container, count = (re.search(rf'id="{name}">(\w+)<', page) for name in ("container-id", "visits"))
    assert container
    assert count, "the app has no secret key"
    return container[1], int(count[1]), response.headers["Set-Cookie"].partition(";")[0]


def test_secret_is_in_its_file_alone(deployed: Deployed, stack: Stack) -> None:
    """It is not in Ansible's output or files, nor in an image, container, log, journal, process list or other file."""
    found = deployed.find(deployed.secret)
    assert found.keys() == {"disk"}, found
    (file,) = found["disk"]
    assert re.fullmatch(rf"{stack.directory}/secrets/app-[0-9a-f]{{12}}/secret_key", file)


def test_search_finds_what_is_not_secret(deployed: Deployed) -> None:
    """An environment variable appears in all these places, which proves that the search works."""
    found = deployed.find(deployed.plain)
    assert found.keys() >= {"output", "disk", "containers", "processes", "processes during the deploy"}


def test_ansible_leaves_nothing_on_the_instance(deployed: Deployed) -> None:
    """Temporary files of Ansible could be compressed, where no search would find the secret."""
    assert deployed.lines(f"find {ANSIBLE_TEMPORARY} -type f -not -path '{OWN_COMMAND}' 2>/dev/null") == []


def test_only_the_service_can_read_it(deployed: Deployed, stack: Stack) -> None:
    """No other user can read it, not even root in the container, which has no capability to ignore permissions."""
    replica = stack.containers("app")[0].id
    read = f"docker exec {{}} {replica} sha256sum /run/secrets/secret_key"
    digest = hashlib.sha256(deployed.secret.encode()).hexdigest()
    assert deployed.host.check_output(read.format("")).split()[0] == digest
    for other in ("--user 0", "--user 10002", "--user 65534"):
        assert deployed.host.run(read.format(other)).rc != 0, other
    write = f"docker exec {replica} sh -c 'echo x > /run/secrets/more'"
    assert deployed.host.run(write).rc != 0
    (file,) = deployed.find(deployed.secret)["disk"]
    assert deployed.host.check_output(f"stat --format %a,%u {file}") == "400,10001"
    assert deployed.host.run(f"runuser --user nobody -- cat {file}").rc != 0


def test_changed_secret_goes_live_and_back(deployed: Deployed, stack: Stack, tmp_path: Path) -> None:
    """Replicas change one by one: the old key is then refused, a rollback brings it back, and no request is lost."""
    _, _, cookie = visits(stack, "")
    answers = [visits(stack, cookie) for _ in range(10 * stack.replicas)]
    assert len({container for container, _, _ in answers}) == stack.replicas
    assert {count for _, count, _ in answers} == {2}, "the replicas do not have the same key"
    with stack.under_load() as load:
        outcome = deploy(tmp_path / "vault", canary(), deployed.plain)
    assert outcome.ok, outcome.said
    assert visits(stack, cookie)[1] == 1, "the old key is still believed"
    # How many could be sent is the machine's business; molecule/rollout counts them.
    report = load.report()
    assert report.failures() == {}, report.examples
    assert report.ok > 0
    back = playbook("playbooks/rollback.yml")
    assert back.ok, back.said
    assert visits(stack, cookie)[1] == 2
