"""Ansible callback: prints one line per phase of a run, and every task only with -v.

A phase is a role within a play. A task that takes long is named, and so is whatever fails. With --check and --diff the
tasks that change something are named too.
"""

from __future__ import annotations

import time
from typing import Any

from ansible import constants, context
from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
name: phases
type: stdout
short_description: Prints one line per phase, and every task only with -v
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

LONG_S = 5.0
"""Seconds after which a task gets a line of its own, and seconds without a line after which the next task gets one."""


class CallbackModule(Default):  # type: ignore[misc]
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "phases"

    def __init__(self) -> None:
        """Begin outside of any phase."""
        super().__init__()
        self._began = self._phase_began = self._printed = time.monotonic()
        self._phase = self._running = ""
        self._changes = 0
        self._title = ""

    def set_options(self, *args: Any, **kwargs: Any) -> None:
        """Decide how much is printed, from the options of the command line."""
        super().set_options(*args, **kwargs)
        self._brief = not self._display.verbosity
        self._names_changes = context.CLIARGS.get("check") or context.CLIARGS.get("diff")
        if self._brief:
            self.set_option("display_ok_hosts", False)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Begin a play; its name becomes part of the names of its phases."""
        if not self._brief:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        self._end_task()
        self._end_phase()
        self._title = play.get_name().strip()

    def _task_start(self, task: Any, prefix: str | None = None) -> None:
        super()._task_start(task, prefix)
        if not self._brief:
            return
        self._end_task()
        role = task._role.get_name() if task._role else ""  # noqa: SLF001 - as Ansible's own callbacks do
        phase = f"{self._title}: {role}" if role else self._title
        if phase != self._phase:
            self._end_phase()
            self._phase, self._phase_began = phase, time.monotonic()
            self._line(phase, constants.COLOR_HIGHLIGHT)
        elif time.monotonic() - self._printed > LONG_S:
            self._line(f"  {task.name} …")
        self._running, self._task_began = task.name, time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count a change; print what a task says to the reader."""
        changed = bool(result.result.get("changed"))
        self._changes += changed
        if not self._brief or (changed and self._names_changes):
            super().v2_runner_on_ok(result)
            return
        self._handle_warnings_and_exception(result)
        if "results" not in result.result:
            self._tell(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Print an item of a loop only when it has a message for the reader or is a change to be named."""
        if not self._brief or (result.result.get("changed") and self._names_changes):
            super().v2_runner_item_on_ok(result)
            return
        self._handle_warnings_and_exception(result)
        self._tell(result)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Name a play that has no hosts, because no line of a phase will name it."""
        self._display.display(f"{self._play.get_name().strip()}: no hosts", color=constants.COLOR_SKIP)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Print included files only with -v."""
        if not self._brief:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End the last phase, and print Ansible's recap with the time of the whole run."""
        if self._brief:
            self._end_task()
            self._end_phase()
        super().v2_playbook_on_stats(stats)
        self._display.display(f"took {time.monotonic() - self._began:.0f} s")

    def _tell(self, result: Any) -> None:
        """Print a message that is for the reader without Ansible's formatting."""
        if result.task.action not in constants._ACTION_DEBUG:  # noqa: SLF001 - as Ansible's own callbacks do
            return
        said = result.result.get("msg")
        if isinstance(said, list):
            said = "\n".join(map(str, said))
        elif not isinstance(said, str):
            self._clean_results(result.result, result.task.action)
            said = self._dump_results(result.result).strip("\n")
        break_before = "\n" if "\n" in said else " "
        self._line(f"{result.host.get_name()}:{break_before}{said}", constants.COLOR_OK)

    def _line(self, text: str, color: str | None = None) -> None:
        self._printed = time.monotonic()
        self._display.display(text, color=color)

    def _end_task(self) -> None:
        """Print the time of a task that took long."""
        if self._running:
            took = time.monotonic() - self._task_began
            if took >= LONG_S:
                self._line(f"  {self._running}: {took:.0f} s")
        self._running = ""

    def _end_phase(self) -> None:
        """Print the changes and the time of a phase that took long or changed something."""
        took = time.monotonic() - self._phase_began
        if self._phase and (self._changes or took >= LONG_S):
            self._line(f"  {self._changes} changed, {took:.0f} s")
        self._phase, self._changes = "", 0
