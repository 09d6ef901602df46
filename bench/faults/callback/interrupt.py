"""Ansible callback: at the start of task $FAULTS_AT it runs $FAULTS_DO, and writes the names of all to $FAULTS_TASKS.

The command is run in the main process, between two tasks, when no task runs. ``{pid}`` stands for that process.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: interrupt
type: notification
short_description: Interrupts a run at a task's boundary, for tests
description: At the start of task $FAULTS_AT, a number or a name, it runs $FAULTS_DO; the names go to $FAULTS_TASKS.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "interrupt"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Start to count tasks at 0."""
        super().__init__(*arguments, **options)
        self._number = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Count a task, and interrupt the run if $FAULTS_AT has its number or name."""
        self._number += 1
        if "FAULTS_TASKS" in os.environ:
            with Path(os.environ["FAULTS_TASKS"]).open("a", encoding="utf-8") as names:
                names.write(f"{task.get_name()}\n")
        if os.environ.get("FAULTS_AT") in {str(self._number), task.get_name()}:
            command = os.environ["FAULTS_DO"].format(pid=os.getpid())
            subprocess.run(shlex.split(command), check=True, timeout=30)
