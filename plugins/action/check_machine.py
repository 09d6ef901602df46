"""Ansible action: refuses, before anything is touched, a machine that is there already and cannot hold the stack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))

from preflight.network import published_ports
from preflight.services import no_room, scaled
from preflight.variables import known_variables

NEEDED = (
    "accessory_services",
    "certificate_mode",
    "stack_address",
    "stack_https_port",
    "stack_name",
    "stack_nginx_memory",
    "stack_port",
    "stack_services",
    "stack_surge",
)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"project", "scale"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the machine for its size and its ports; any problem fails the task, with one message for all."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = task_vars or {}
        stack = self._stack(Path(self._task.args["project"]), given)
        if self._task.args.get("scale"):
            stack["stack_services"] = scaled(stack["stack_services"], given)
        size = {"gather_subset": ["!all", "!min", "hardware"]}
        asked: dict[str, Any] = self._execute_module("ansible.builtin.setup", size, task_vars=task_vars)
        facts = asked.get("ansible_facts")
        if not facts:
            return asked
        ports = {name: stack[name] for name in published_ports(stack)}
        wanted = {"address": stack["stack_address"], "ports": ports, "project": stack["stack_name"]}
        tried: dict[str, Any] = self._execute_module("free_ports", wanted, task_vars=task_vars)
        if "problems" not in tried:
            return tried
        room = no_room(stack, "this machine", facts["ansible_processor_nproc"], facts["ansible_memtotal_mb"])
        problems = [*room, *tried["problems"]]
        listed = "\n".join(f"- {problem}" for problem in problems)
        return result | {
            "changed": False,
            "failed": bool(problems),
            "msg": f"Nothing was touched. To be mended first:\n{listed}"
            if problems
            else "The machine is large enough.",
        }

    def _stack(self, project: Path, given: dict[str, Any]) -> dict[str, Any]:
        """Give the values that the checks need, with the defaults that no role has set yet."""
        of_roles = known_variables(project / "roles")
        options = of_roles["stack"] | of_roles["certificate"] | of_roles["accessory"]
        return {
            name: self._templar.template(given[name]) if name in given else options[name]["default"] for name in NEEDED
        }
