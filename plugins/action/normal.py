"""Ansible action of every module that has none of its own: lets a module of amazon.aws say AWS's reason.

Many of them fail with "Could not apply change to existing instance" alone, and only their traceback has AWS's words.
Ansible looks here before it takes its own action of this name: ansible/executor/task_executor.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))

from preflight.refusals import find_refusal

AWS = "amazon.aws."


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _supports_check_mode = True
    _supports_async = True

    def _update_module_args(self, module_name: str, module_args: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super()._update_module_args(module_name, module_args, *args, **kwargs)
        if module_name.startswith(AWS):
            module_args["_ansible_tracebacks_for"] = ["error"]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module as Ansible's own action does; add AWS's words to its message, and drop the traceback."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        in_background = self._task.async_val and not self._connection.has_native_async
        result |= self._execute_module(task_vars=task_vars, wrap_async=in_background)
        if not in_background:
            self._remove_tmp_path(self._connection._shell.tmpdir)  # noqa: SLF001 - as Ansible's own action does
        if self._task.action.startswith(AWS) and result.get("failed") and "exception" in result:
            # A module that did not expect the error at all gives its traceback without a message, or it writes only the
            # traceback, and Ansible says that this is no JSON.
            said = "" if "module_stderr" in result else str(result.get("msg", ""))
            traces = [str(result["exception"].event.formatted_traceback), str(result.get("module_stderr", ""))]
            hidden = find_refusal("\n".join(traces))
            if hidden and not find_refusal(said):
                result["msg"] = ": ".join(filter(None, [said, str(hidden)]))
                result.pop("module_stderr", None)
            if "msg" in result:
                del result["exception"]
        return result
