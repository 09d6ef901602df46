"""Ansible callback: counts the modules that are sent over SSH, and the commands that actions run there, by task.

Each of these calls costs time. It has to be enabled by name:

ANSIBLE_CALLBACKS_ENABLED=executions ansible-playbook site.yml -i inventories/aws
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

COUNTED = {"_execute_module": "module", "_low_level_execute_command": "command"}


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "executions"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Have every action note what it does.

        Actions run in processes of their own, so they note it in a file.
        """
        super().__init__()
        number, name = tempfile.mkstemp(prefix="executions-")
        os.close(number)
        self._notes = Path(name)
        for method, kind in COUNTED.items():
            setattr(ActionBase, method, _noted(getattr(ActionBase, method), kind, self._notes))

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002
        """Show the numbers, and remove the notes."""
        noted = [json.loads(line) for line in self._notes.read_text(encoding="utf-8").splitlines()]
        self._notes.unlink()
        # The commands that a module needs, such as for a folder of its own, are part of it.
        modules = Counter(task for kind, task in noted if kind == "module")
        commands = Counter(task for kind, task in noted if kind == "command" and task not in modules)
        for kind, counted in (("module executions", modules), ("commands", commands)):
            self._display.display(f"{counted.total()} {kind} on the machines")
            for task, times in counted.most_common():
                self._display.display(f"  {times:3}  {task}")


def _noted(method: Callable[..., Any], kind: str, notes: Path) -> Callable[..., Any]:
    @wraps(method)
    def noted(action: Any, *args: Any, **kwargs: Any) -> Any:
        if action._connection.transport == "ssh":  # noqa: SLF001 - there is no other way to ask
            with notes.open("a", encoding="utf-8") as file:
                file.write(json.dumps([kind, action._task.get_name()]) + "\n")  # noqa: SLF001
        return method(action, *args, **kwargs)

    return noted
