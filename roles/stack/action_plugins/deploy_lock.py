"""Ansible action: keeps a second deploy out, and takes over the lock of a run on this controller that is dead."""

from __future__ import annotations

import os
import socket
from typing import Any

from ansible.plugins.action import ActionBase


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine exists.

    Args:
        pid: Its number.

    Returns:
        True also when it is another user's.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"action", "directory", "who", "seconds"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Lock, or with ``action: locked`` only ask.

        Args:
            tmp: Unused.
            task_vars: All variables.

        Returns:
            Ansible's result; failed when somebody else deploys.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        # The worker's parent is ansible-playbook itself.
        ours = {"controller": socket.gethostname(), "pid": os.getppid()}
        given = {"action": "lock", **self._task.args, **ours}
        answer: dict[str, Any] = self._execute_module("stack_machine", module_args=given, task_vars=task_vars)
        holder = answer.get("holder", {})
        if holder.get("controller") == ours["controller"] and not is_alive(int(holder["pid"])):
            given["seconds"] = 0
            answer = self._execute_module("stack_machine", module_args=given, task_vars=task_vars)
        return result | answer
