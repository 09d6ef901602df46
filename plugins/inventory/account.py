"""Ansible inventory source: makes sure that somebody answers as AWS before instances are asked for, and says who.

Without it a missing credential ends in pages of parser warnings, or in an empty inventory.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.display import Display

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))

from preflight.account import AccountError, identify, inventory_region


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    """Ansible's entry point."""

    NAME = "account"

    _said: set[str] = set()  # noqa: RUF012 - of the class: a play that reads the inventory again makes a new object

    def verify_file(self, path: str) -> bool:
        """Tell whether a file is this plugin's, which is an account.yml."""
        return bool(super().verify_file(path)) and path.endswith("account.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Check the account, say which one it is, and add no host.

        Raises:
            SystemExit: Nobody answers, or the wrong one. An ordinary error would be buried under what the other parsers
                say.
        """
        super().parse(inventory, loader, path, cache)
        try:
            who = str(identify(inventory_region(Path(path).parent)))
        except AccountError as error:
            Display().error(str(error), wrap_text=False)
            raise SystemExit(1) from error
        if who not in self._said:
            self._said.add(who)
            # ansible-inventory's result is on stdout.
            Display().display(who, color="bright purple", stderr=True)
