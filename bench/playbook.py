"""Playbooks as a user runs them, and their output."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.project import ROOT, load_mapping

PATIENCE_S = 600
INTERRUPT = {
    "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT / 'plugins/callback'}:{ROOT / 'bench/faults/callback'}",
    "ANSIBLE_CALLBACKS_ENABLED": "interrupt,diagnose_ssh",
}
"""Environment that switches on the callback which interrupts a run, beside those of ansible.cfg."""


class Outcome:
    """How a playbook ended."""

    def __init__(self, command: Sequence[str], patience: float = PATIENCE_S, **environment: str) -> None:
        """Run a command from the project's folder, for at most ``patience`` seconds, with further environment."""
        # Molecule asks for colours, which are between the words that are looked for.
        plain = os.environ | {"ANSIBLE_FORCE_COLOR": "false"} | environment
        began = time.monotonic()
        self.done = subprocess.run(
            command, cwd=ROOT, env=plain, capture_output=True, text=True, check=False, timeout=patience
        )
        self.seconds = time.monotonic() - began

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.done.returncode == 0

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.done.stdout + self.done.stderr

    @property
    def text(self) -> str:
        """All that it printed, on one line."""
        return " ".join(self.said.split())

    @property
    def changed(self) -> dict[str, int]:
        """Number of changes by host, from the recap."""
        recap = self.done.stdout.partition("PLAY RECAP")[2]
        return {
            host: int(number) for host, number in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", recap, re.MULTILINE)
        }

    def task_seconds(self) -> dict[str, float]:
        """Read how many seconds each task took, by its name, from the profile at the end of the output."""
        return {
            name.strip(): float(seconds)
            for name, seconds in re.findall(r"^(\S.*?) -+ *([\d.]+)s$", self.done.stdout, re.MULTILINE)
        }


def variables_file() -> Path:
    """Return the file with the variables of the scenario that is running."""
    # By hand there is no scenario, and what the inventory says is all.
    return Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY", "")) / "vars/inventory.yml"


def scenario_variables() -> dict[str, Any]:
    """Read the variables of the scenario that is running, by name; it may have none."""
    return load_mapping(variables_file())


def interrupted(task: str, command: str) -> list[str]:
    """Write the words before a playbook that make it run a command when a task begins.

    ``task`` has its role's name. The command runs in the main process, between two tasks; ``{pid}`` stands for that
    process.
    """
    environment = INTERRUPT | {"FAULTS_AT": task, "FAULTS_DO": command}
    return ["env", *(f"{name}={value}" for name, value in environment.items())]


def command(path: str, *arguments: str) -> list[str]:
    """Write the command that runs a playbook as ``playbook`` does."""
    extra = ["--extra-vars", f"@{variables_file()}"] if variables_file().exists() else []
    return ["ansible-playbook", path, "--inventory", "inventories/aws", *extra, *arguments]


def playbook(path: str, *arguments: str, prefix: Sequence[str] = ()) -> Outcome:
    """Run a playbook with the inventory of EC2, and with the variables of the scenario that is running.

    Args:
        path: Of the playbook, from the project's folder.
        arguments: Further arguments of ansible-playbook.
        prefix: Words before the command, such as a program that changes what it sees.
    """
    return Outcome([*prefix, *command(path, *arguments)])
