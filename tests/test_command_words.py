"""The command of playbooks/exec.yml arrives as it was typed."""

from __future__ import annotations

import pytest

from roles.stack.lookup_plugins.command_words import command_words

PRINT = ["python", "-c", "print(6 * 7)"]


@pytest.mark.parametrize(
    ("value", "extra_vars", "words"),
    [
        ("python", ["service=app", 'command=python -c "print(6 * 7)"'], PRINT),
        ('python -c "print(6 * 7)"', ["""command='python -c "print(6 * 7)"'"""], PRINT),
        ('python -c "print(6 * 7)"', ['{"command": "python -c \\"print(6 * 7)\\""}'], PRINT),
        ('python -c "print(6 * 7)"', [], PRINT),
        ("env", ["command=env"], ["env"]),
    ],
)
def test_words_are_those_that_were_meant(value: str, extra_vars: list[str], words: list[str]) -> None:
    """They are right however the command was quoted; Ansible alone would run `python` and report success."""
    assert command_words(value, extra_vars) == words


def test_open_quotation_mark_is_refused() -> None:
    """Nobody can tell where the word was meant to end."""
    with pytest.raises(ValueError, match="quotation"):
        command_words("echo 'a", [])
