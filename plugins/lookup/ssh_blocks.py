"""Ansible lookup: the blocks of ec2_ssh_cidrs, with this machine's address in the place of ``me``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))

from preflight.network import items
from preflight.own_address import UnknownAddressError, ssh_blocks


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[Any], *_: Any, **__: Any) -> list[str]:
        """Give the blocks of ec2_ssh_cidrs, and ask for this machine's address only where it is needed."""
        try:
            return ssh_blocks(cidr for term in terms for cidr in items(term))
        except UnknownAddressError as error:
            raise AnsibleLookupError(str(error)) from error
