"""Ansible action: keeps a second deploy out, and takes over the lock of a run on this controller that is dead."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


def began(pid: int) -> str:
    """Tell when a process began, so that a later one with the same number is not taken for it.

    Args:
        pid: Its number.

    Returns:
        What the kernel counts; empty where it does not say, or where there is no such process.
    """
    try:
        # The program's name, in parentheses, may have spaces.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def is_alive(holder: Mapping[str, Any]) -> bool:
    """Tell whether a process of this machine exists.

    Args:
        holder: Its ``pid``, and when it ``began`` if that is known.

    Returns:
        True also when it is another user's.
    """
    pid = int(holder["pid"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    then, now = holder.get("began", ""), began(pid)
    return "" in (then, now) or then == now


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"action", "directory", "who", "seconds"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Lock, or with ``action: unlock`` give the lock back, or with ``action: begin`` a roll-out that has it.

        Args:
            tmp: Unused.
            task_vars: All variables.

        Returns:
            Ansible's result; failed when somebody else deploys.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        # The worker's parent is ansible-playbook itself.
        pid = os.getppid()
        ours = {"controller": socket.gethostname(), "pid": pid, "began": began(pid)}
        given = {"action": "lock", **self._task.args, **ours}
        if self._task.check_mode and given["action"] == "lock":
            given["action"] = "locked"
        answer: dict[str, Any] = self._execute_module("stack_machine", module_args=given, task_vars=task_vars)
        holder = answer.get("holder", {})
        if holder.get("controller") == ours["controller"] and not is_alive(holder):
            # Its lock alone: whoever else found it dead may have the next one by now.
            given["dead"] = holder
            answer = self._execute_module("stack_machine", module_args=given, task_vars=task_vars)
        return result | answer
