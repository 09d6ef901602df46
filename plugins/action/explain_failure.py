"""Ansible action: fails again, with AWS's words, what to change, and what exists of the project and costs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))

from preflight.cost import read_prices
from preflight.existing import described
from preflight.refusals import find_refusal, messages


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"existing", "project", "region", "result", "task"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Explain the failure of another task; the result is always failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result | {"failed": True, "changed": False, "msg": "\n".join([*self._cause(), *self._left()])}

    def _cause(self) -> Iterator[str]:
        yield f"It failed at: {self._task.args['task']}"
        for said in messages(self._task.args["result"]):
            yield said
            refusal = find_refusal(said)
            if refusal:
                yield f"To change: {refusal.advice()}"

    def _left(self) -> Iterator[str]:
        project, region, existing = (self._task.args[name] for name in ("project", "region", "existing"))
        if "resources" not in existing:
            yield f"What exists of {project} in {region} could not be listed: {next(messages(existing))}"
        elif existing["lines"]:
            yield f"This exists of {project} in {region}:"
            yield from described(existing["resources"], region, read_prices())
        elif not existing["unknown"]:
            yield f"Nothing of {project} exists in {region}, so nothing costs. Then run it again."
            return
        for kind, action in existing.get("unknown", {}).items():
            yield f"These credentials may not ask for any {kind} ({action})."
        yield "The same command goes on from here. This removes all of it:"
        yield "  ansible-playbook playbooks/destroy.yml -i inventories/aws"
