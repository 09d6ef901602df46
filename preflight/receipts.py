"""Proof before money: what a passed scenario was run with, and whether that is what AWS is about to get."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

COVERED = (
    "ansible.cfg",
    "files",
    "playbooks",
    "plugins",
    "preflight",
    "requirements.txt",
    "requirements.yml",
    "roles",
    "site.yml",
)
"""What decides what site.yml does, beside the inventory and the contexts of the services."""

IGNORED = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv"}

LESS_THAN_PASSED = ("failed", "error", "skipped", "deselected", "xfailed", "xpassed")

PROVING = "default"
"""The scenario that runs site.yml from end to end. Receipts of others are told, but are not enough."""

COMMAND = f"molecule test -s {PROVING}   (or all scenarios: make molecule)"


@dataclass(frozen=True)
class Receipt:
    """A scenario whose tests all passed.

    Attributes:
        scenario: Its name.
        tests: How many tests passed.
        time: When, in ISO 8601.
        fingerprint: Of what it was run with.
    """

    scenario: str
    tests: int
    time: str
    fingerprint: str

    def __str__(self) -> str:
        """Say it to the person, in local time."""
        when = datetime.fromisoformat(self.time).astimezone()
        return f"scenario {self.scenario}, {self.tests} tests, {when:%Y-%m-%d %H:%M}"


def folder() -> Path:
    """Find where receipts are kept.

    Returns:
        A folder that need not exist.
    """
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "flask-fleet" / "receipts"


def _files(root: Path) -> Iterator[Path]:
    """Walk through a folder, or give the file; in no order."""
    if root.is_file():
        yield root
    for path in root.iterdir() if root.is_dir() else ():
        if path.name not in IGNORED:
            yield from _files(path)


def _covered(project: Path, inventory: Path, contexts: Iterable[str]) -> list[Path]:
    """List all files that decide what site.yml does."""
    roots = {project / name for name in (*COVERED, *contexts)} | {inventory}
    return sorted({file.resolve() for root in roots for file in _files(root)})


def last_change(project: Path, inventory: Path, contexts: Iterable[str]) -> float:
    """Tell when something was last changed that decides what site.yml does.

    Args:
        project: Folder of the project.
        inventory: Folder of the inventory.
        contexts: Folders of the services, relative to the project or absolute.

    Returns:
        Seconds since the epoch.
    """
    return max(path.stat().st_mtime for path in _covered(project, inventory, contexts))


def fingerprint(project: Path, inventory: Path, contexts: Iterable[str]) -> str:
    """Hash everything that decides what site.yml does.

    Args:
        project: Folder of the project.
        inventory: Folder of the inventory.
        contexts: Folders of the services, relative to the project or absolute.

    Returns:
        Hexadecimal digits. Names, contents and whether a file can be executed count, times and owners do not.
    """
    total = hashlib.sha256()
    for path in _covered(project, inventory, contexts):
        name = os.path.relpath(path, project)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{name}\0{os.access(path, os.X_OK)}\0{content}\n".encode())
    return total.hexdigest()


def complete(outcomes: Mapping[str, Sequence[object]]) -> int:
    """Tell whether a session of pytest proved something.

    Args:
        outcomes: Reports by outcome, as pytest's terminal reporter keeps them.

    Returns:
        How many tests passed; 0 when any failed, or was left out.
    """
    if any(outcomes.get(outcome) for outcome in LESS_THAN_PASSED):
        return 0
    return len(outcomes.get("passed", ()))


def write(scenario: str, tests: int, digest: str) -> Path:
    """Leave a receipt.

    Args:
        scenario: Whose tests all passed.
        tests: How many there were.
        digest: As ``fingerprint`` gives it.

    Returns:
        The file.
    """
    receipt = Receipt(scenario, tests, datetime.now(UTC).isoformat(timespec="seconds"), digest)
    folder().mkdir(parents=True, exist_ok=True)
    file = folder() / f"{scenario}-{digest[:12]}.json"
    file.write_text(json.dumps(asdict(receipt), indent=2) + "\n", encoding="utf-8")
    return file


def find(digest: str) -> list[Receipt]:
    """Look for the receipts of exactly this.

    Args:
        digest: As ``fingerprint`` gives it.

    Returns:
        The proving scenario's first, if there is one.
    """
    found = []
    for file in sorted(folder().glob(f"*-{digest[:12]}.json")):
        try:
            receipt = Receipt(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError):
            continue
        if receipt.fingerprint == digest:
            found.append(receipt)
    return sorted(found, key=lambda one: (one.scenario != PROVING, one.scenario))


def proof(digest: str, overridden: Iterable[str], unproven: bool) -> tuple[str, bool]:
    """Say what proves that it works.

    Args:
        digest: Of what is about to be done.
        overridden: Variables given with -e, which no receipt covers.
        unproven: Whether to go ahead all the same.

    Returns:
        A sentence, and whether to go ahead.
    """
    found = find(digest)
    given = ", ".join(sorted(overridden))
    besides = f", apart from what -e gives: {given}" if given else ""
    if found and found[0].scenario == PROVING:
        return f"Proved by {'; '.join(map(str, found))}{besides}", True
    if unproven:
        return "UNPROVEN: no receipt of a passed test covers this, and ec2_unproven is true", True
    partly = f" (only {'; '.join(map(str, found))})" if found else ""
    refusal = (
        f"No passed test has proved what this is about to do on AWS{partly}: there was none, or playbooks, roles, "
        f"files, app or inventory changed since. Allowed is to prove it first: {COMMAND}; or -e ec2_unproven=true"
    )
    return refusal, False
