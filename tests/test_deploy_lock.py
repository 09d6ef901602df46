"""A deploy has the lock from before its first step to after its last, on every machine, and never another's."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from roles.stack.action_plugins.deploy_lock import began, is_alive
from tests.preflight.input import free_port
from tests.project import ROOT, load_mapping

MACHINES = ("one", "two")
TIMEOUT_S = 120


def holder(pid: int, **changes: Any) -> dict[str, Any]:
    """Describe a run on this controller."""
    return {"who": "jane", "controller": socket.gethostname(), "pid": pid, "began": began(pid), **changes}


def ended() -> dict[str, Any]:
    """Describe a run on this controller that was killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return holder(process.pid)


def hold(folder: Path, who: Mapping[str, Any]) -> Path:
    """Have somebody hold the lock of a machine."""
    folder.mkdir()
    note = folder / "lock.json"
    note.write_text(json.dumps(who))
    # Older than any lock may become, so that only the process counts.
    os.utime(note, (0, 0))
    return note


def play(folder: Path, playbook: str, *arguments: str, **two: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook on two machines that are folders, and have no engine; the second may have variables of its own."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: here | {"stack_directory": str(folder / name)} for name in MACHINES}
    hosts["two"] |= two
    groups = {"app": {"hosts": hosts}, "provisioner": {}}
    services = load_mapping(ROOT / "inventories/local/group_vars/all/services.yml")
    inventory = {"all": {"hosts": {"localhost": here}, "children": groups, "vars": services}}
    (folder / "hosts.yml").write_text(json.dumps(inventory))
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        f"playbooks/{playbook}.yml",
        f"--inventory={folder / 'hosts.yml'}",
        f"--extra-vars={json.dumps({'stack_port': free_port(), 'app': 2})}",
        *arguments,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    environment |= {"ANSIBLE_HOME": str(folder / "ansible"), "ANSIBLE_NOCOLOR": "1", "DOCKER_HOST": "unix:///none"}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=ROOT, env=environment
    )


def test_a_process_is_alive_until_it_ended() -> None:
    """The lock of a run that was killed on this controller is taken over at once."""
    assert not is_alive(ended())
    assert is_alive(holder(os.getpid()))
    assert is_alive(holder(os.getpid(), began="")), "where the kernel does not say, the number counts"
    assert not is_alive(holder(os.getpid(), began="1")), "another process had this number"


def test_a_deploy_that_fails_lets_the_next_in_on_every_machine(tmp_path: Path) -> None:
    """Here because there is no engine; one of the locks was left behind by a run that was killed."""
    hold(tmp_path / "one", ended())
    run = play(tmp_path, "deploy")
    said = " ".join((run.stdout + run.stderr).split())
    assert run.returncode != 0
    assert "took over the lock that jane left behind" in said
    assert "Ask which images are there" in said, run.stdout
    assert run.stdout.count("changed=0") >= len(MACHINES)
    for name in MACHINES:
        assert [path.name for path in (tmp_path / name).iterdir()] == ["lock.json.guard"]


@pytest.mark.parametrize("arguments", [["deploy"], ["deploy", "--check"], ["rollback"], ["scale"]], ids=" ".join)
def test_who_loses_is_told_before_anything_is_done(tmp_path: Path, arguments: list[str]) -> None:
    """The lock of the machine where it won is given back, the winner's is not."""
    note = hold(tmp_path / "two", holder(os.getpid()))
    run = play(tmp_path, *arguments)
    said = " ".join((run.stdout + run.stderr).split())
    assert run.returncode != 0
    assert f"jane, from {socket.gethostname()}, has been deploying here since 1970-01-01" in said, run.stdout
    assert "Ask which" not in said
    assert "rollback |" not in said
    assert "scale |" not in said
    assert json.loads(note.read_text()) == holder(os.getpid())
    left = {path.name for path in (tmp_path / "one").iterdir()} if (tmp_path / "one").exists() else set()
    assert left == (set() if "--check" in arguments else {"lock.json.guard"})


def test_a_machine_that_cannot_be_reached_leaves_no_other_one_locked(tmp_path: Path) -> None:
    """Ansible gives up on all of them, and the lock of those that can be reached is to be given back."""
    # Gone since preflight looked at it.
    run = play(
        tmp_path, "deploy", ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1, __preflight_machine={}
    )
    assert re.search(r"^two +: .*unreachable=1 ", run.stdout, re.MULTILINE), run.stdout
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["lock.json.guard"]
