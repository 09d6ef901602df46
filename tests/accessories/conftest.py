"""Databases of a project of their own, beside whatever else runs on this machine."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.playbook import Outcome
from tests.project import ACCESSORY, ROOT

STACK = "accessory-test"
HOSTS = """---
all:
  children:
    app: &here
      hosts:
        localhost:
          ansible_connection: local
          ansible_python_interpreter: "{{ ansible_playbook_python }}"
    provisioner: *here
"""
"""An inventory in which this machine is an instance and also makes instances."""

START = """---
- name: Start databases
  hosts: app
  gather_facts: false
  roles:
    - role: image
      vars:
        image_recipes: "{{ accessory_services | map(attribute='kind') | unique }}"
    - role: accessory
      vars:
        accessory_images: "{{ image_references }}"
  tasks:
    - name: Remove what nobody uses any more
      ansible.builtin.import_role:
        name: accessory
        tasks_from: prune
"""
"""What a deploy does with databases, without the stack."""

PATIENCE_S = 900
"""The first run makes images."""


class Lab:
    """An inventory with databases, and what tests do with them."""

    def __init__(self, folder: Path) -> None:
        """Write the inventory and a playbook into a folder."""
        self.folder = folder
        self.backups = folder / "backups"
        self.passwords = {"db": f"a:b\\c'{secrets.token_hex(16)}$", "cache": secrets.token_hex(16)}
        self.memory = {"db": "128m", "cache": "32m"}
        (folder / "group_vars/all").mkdir(parents=True)
        (folder / "hosts.yml").write_text(HOSTS)
        (folder / "start.yml").write_text(START)

    def play(self, playbook: str | Path, *arguments: str) -> Outcome:
        """Run a playbook of the project or one of this folder, with further arguments of ansible-playbook."""
        kinds = {"db": "postgresql", "cache": "redis"}
        variables = {
            "stack_name": STACK,
            "stack_directory": str(self.folder / "stack"),
            "accessory_backup_folder": str(self.backups),
            "accessory_services": [
                ACCESSORY | {"name": name, "kind": kind, "memory": self.memory[name], "password": self.passwords[name]}
                for name, kind in kinds.items()
            ],
        }
        (self.folder / "group_vars/all/test.yml").write_text(json.dumps(variables))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return Outcome(
            [program, str(playbook), "--inventory", str(self.folder / "hosts.yml"), *arguments],
            PATIENCE_S,
            ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
        )

    def start(self) -> Outcome:
        """Do what a deploy does with databases."""
        return self.play(self.folder / "start.yml")

    def container(self, name: str) -> dict[str, Any]:
        """Return what the engine knows about the container of a database."""
        (found,) = json.loads(docker("inspect", f"{STACK}-data-{name}-1"))
        return dict(found)

    def sql(self, statement: str) -> str:
        """Run a statement of PostgreSQL as the superuser in the role of the app, and return psql's plain output."""
        words = [
            "psql",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--command",
            f"SET ROLE app; {statement}",
        ]
        return docker("exec", f"{STACK}-data-db-1", *words).replace("SET\n", "", 1).strip()

    def redis(self, *words: str) -> str:
        """Run a command of Redis as its administrator, and return its output."""
        return docker("exec", f"{STACK}-data-cache-1", "admin", *words).strip()

    def backup(self, suffix: str) -> Path:
        """Find the newest backup whose name has this suffix, given without its point."""
        return max(self.backups.rglob(f"*.{suffix}"), key=lambda path: path.stat().st_mtime_ns)

    def volumes(self) -> list[str]:
        """List the names of the databases' volumes."""
        label = f"label=com.docker.compose.project={STACK}-data"
        return sorted(docker("volume", "ls", "--quiet", "--filter", label).split())


def docker(*words: str) -> str:
    """Run a docker command that must succeed, and return what it printed."""
    return _ask(*words).stdout


def logs(container: str) -> str:
    """Read a container's stdout and stderr."""
    done = _ask("logs", container)
    return done.stdout + done.stderr


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start the databases for all tests, and remove them at the end."""
    made = Lab(tmp_path_factory.mktemp("accessories"))
    try:
        first = made.start()
        assert first.ok, first.said
        yield made
    finally:
        made.play("playbooks/down.yml", "--extra-vars=data=delete")
    assert made.volumes() == []
