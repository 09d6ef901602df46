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
from preflight.variables import known_variables, stack_defaults, verdict

ROLES = Path(__file__).parents[2] / "roles"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"scale"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the machine for its size and its ports; any problem fails the task, with one message for all."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = task_vars or {}
        # No role has set its defaults yet.
        stack = stack_defaults(known_variables(ROLES))
        stack |= {name: self._templar.template(given[name]) for name in stack if name in given}
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
        return result | verdict([*room, *tried["problems"]], "The machine is large enough.")
