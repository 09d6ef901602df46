"""Commands, files and times of the machine, in one place."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

COMMAND_TIMEOUT_S = 900
LOG_LINES = 20
"""How much of a log helps to find out why something failed."""


class FleetError(Exception):
    """Something failed; the message is for a person."""


class CancelledError(Exception):
    """A person wants a job to end; not a failure, so that nobody who expects one takes it for theirs."""


class LateError(FleetError):
    """A command did not end in time."""

    def __init__(self, command: Sequence[str], seconds: float, text: str) -> None:
        """Say which; ``text`` is what it printed until then."""
        super().__init__(f"{' '.join(command[:4])} … did not end within {seconds:.0f} s")
        self.text = text


def attempt(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail; ``options`` are those of ``subprocess.run``.

    Raises:
        LateError: It did not end within ``timeout`` seconds; unless said otherwise, a quarter of an hour.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given: dict[str, Any] = pipes | {"timeout": COMMAND_TIMEOUT_S} | options
    try:
        done = subprocess.run(command, text=True, errors="replace", check=False, **given)
    except subprocess.TimeoutExpired as late:
        printed = late.stdout or b""
        raise LateError(command, late.timeout, printed.decode(errors="replace")) from late
    return cast("subprocess.CompletedProcess[str]", done)


def run(command: Sequence[str]) -> str:
    """Run a command and give what it printed.

    Raises:
        FleetError: It failed; the message has what it printed on stderr.
    """
    done = attempt(command)
    if done.returncode:
        raise FleetError(f"{' '.join(command[:4])} …: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def write(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it, not even after the disk was full.

    Raises:
        FleetError: It was not written; what was there before still is.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        # The error of a full disk does not name the file.
        raise FleetError(f"{path} is not written: {error.strerror}") from error


def last_lines(text: str) -> str:
    """Keep the end of a log."""
    return "\n".join(text.strip().splitlines()[-LOG_LINES:])


def utc(seconds: float) -> str:
    """Write a time, in seconds since 1970, for a person."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
