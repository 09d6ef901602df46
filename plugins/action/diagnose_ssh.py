"""Ansible action: fails with the reason why an instance cannot be reached: security group, key or boot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))

from preflight.unreachable import NEEDED, explain_host


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"instance", *NEEDED})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look for the reason with the task's arguments alone; the result is always failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        said = explain_host(self._task.args["instance"], self._task.args)
        return result | {"failed": True, "changed": False, "msg": said}
