"""Ansible vars plugin: gives no variables, but says which vault has no password, or a wrong one, and how to give one.

Ansible's own message names neither the file nor the option. This looks at group_vars and host_vars beside the inventory
and the playbook while variables are read, before any task.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecretsContext, is_encrypted
from ansible.plugins.vars import BaseVarsPlugin

OPTIONS = "--ask-vault-pass or --vault-password-file FILE"


class VarsModule(BaseVarsPlugin):  # type: ignore[misc]
    """Ansible's entry point."""

    REQUIRES_ENABLED = True
    _seen: set[str] = set()  # noqa: RUF012 - of all instances together

    def get_vars(self, loader: DataLoader, path: str, entities: Any, cache: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Try to open what is encrypted beside an inventory or a playbook, once for each folder; give no variables."""
        if path not in self._seen:
            self._seen.add(path)
            for folder in ("group_vars", "host_vars"):
                for file in sorted(Path(path, folder).rglob("*")):
                    if file.is_file():
                        _try_to_open(file)
        return {}


def _try_to_open(file: Path) -> None:
    content = file.read_bytes()
    if not is_encrypted(content):
        return
    context = VaultSecretsContext.current(optional=True)
    if not context or not context.secrets:
        raise AnsibleError(f"{file} is encrypted, and no vault password was given: add {OPTIONS}")
    try:
        VaultLib(context.secrets).decrypt(content)
    except AnsibleError as error:
        raise AnsibleError(
            f"The vault password that was given does not open {file}: give the right one with {OPTIONS}"
        ) from error
