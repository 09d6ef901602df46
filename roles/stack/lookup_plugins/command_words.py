"""Ansible lookup: the words of a command that was given as `-e command='python -c "..."'`.

Ansible reads `-e command=python -V` as the command `python` and forgets the rest. This takes it as it was typed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def command_words(value: str, extra_vars: Iterable[str]) -> list[str]:
    """Find what somebody meant by what Ansible made of it, and by the arguments of all ``-e`` as they were typed."""
    typed = [text.partition("=")[2] for text in extra_vars if text.startswith("command=")]
    words = shlex.split(typed[-1] if typed else value)
    # A single word is a command that was quoted once more, as Ansible itself needs it.
    return shlex.split(words[0]) if len(words) == 1 else words


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[str], *_: Any, **__: Any) -> list[list[str]]:
        """Look the command up; the result is one list of words."""
        try:
            return [command_words(str(terms[0]), context.CLIARGS.get("extra_vars") or ())]
        except ValueError as error:
            raise AnsibleLookupError(f"command is {terms[0]!r}: {error}") from error
