"""A program called docker that gives the answers of a test and records its calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """#!{python}
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
asked = " ".join(sys.argv[1:])
with (here / "asked").open("a") as notes:
    notes.write(json.dumps(sys.argv[1:]) + "\\n")
for words, answer in json.loads((here / "answers").read_text()):
    if words in asked:
        if "copy" in answer:
            sys.stdout.write(sys.stdin.read())
        print(answer.get("says", ""), end="", flush=True)
        sys.stderr.write(answer.get("complains", ""))
        time.sleep(answer.get("takes", 0))
        while not pathlib.Path(answer.get("until", "/")).exists():
            time.sleep(0.05)
        sys.exit(answer.get("status", 0))
"""

Answer = dict[str, object]


def container(key: str, service: str, config_hash: str, **changes: Any) -> dict[str, Any]:
    """Describe a running container of Compose as the engine inspects it."""
    labels = {"com.docker.compose.service": service, "com.docker.compose.config-hash": config_hash}
    return {
        "Id": key,
        "Name": f"/fleet-{key}",
        "RestartCount": 0,
        "Config": {"Env": [], "Labels": labels},
        "State": {"Running": True, "Restarting": False, "ExitCode": 0, "OOMKilled": False, "StartedAt": "2026"},
        "NetworkSettings": {"Networks": {"front": {"IPAddress": "172.18.0.2"}}},
    } | changes


class Docker:
    """The answers of the program, and the calls that it got."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Write the program into a new folder, and put that first on the PATH."""
        self.folder = folder
        self.answers: list[tuple[str, Answer]] = []
        folder.mkdir()
        program = folder / "docker"
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        self._write()
        monkeypatch.setenv("PATH", str(folder), prepend=":")

    def answer(self, words: str, **how: object) -> None:
        """Set the answer to commands that contain some words.

        The newest answer that fits counts. A command without one prints nothing and succeeds.

        Args:
            words: Part of the arguments, joined by spaces.
            **how: ``says`` (stdout), ``complains`` (stderr), ``status``, ``takes`` (seconds), ``until`` (a file exists)
                and ``copy`` (stdin to stdout).
        """
        self.answers.insert(0, (words, how))
        self._write()

    def asked(self, words: str = "") -> list[Sequence[str]]:
        """List the arguments of each call that contains these words; empty words fit every call."""
        notes = self.folder / "asked"
        calls = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        return [call for call in calls if words in " ".join(call)]

    def _write(self) -> None:
        (self.folder / "answers").write_text(json.dumps(self.answers))
