"""Ansible callback: says why an instance is unreachable, whichever task and playbook finds it so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Ansible's entry point."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "diagnose_ssh"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember where the variables of the hosts are."""
        self._play = play

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Say why, where the host is an instance of EC2."""
        host, play = result.host, self._play
        variables = play.get_variable_manager().get_vars(play=play, host=host)
        if "aws_instance_id" not in variables:
            return
        # Here, because boto3 would cost every run a quarter of a second.
        from preflight.unreachable import NEEDED, explain_host  # noqa: PLC0415

        templar = Templar(loader=play.get_loader(), variables=variables)
        said = explain_host(host.name, {name: templar.template(variables[name]) for name in NEEDED})
        self._display.display(f"{host.name}: {said}", color=constants.COLOR_UNREACHABLE)
