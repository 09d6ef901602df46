"""Receipts of passed tests, which tell whether the code that is about to ask AWS is code that passed its tests."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

PROJECT = Path(__file__).parents[1]

RELEASE = "receipt.json"
"""The receipt that comes with a release: `make release` writes it after `make test` passed."""

NO_CODE = {
    "LICENSE",
    "Makefile",
    "README.md",
    "app",  # the user's; it is built, started and asked before it gets traffic
    "audit",
    "bench",
    "docs",
    "inventories",  # values, which preflight checks
    "molecule",
    "pyproject.toml",
    RELEASE,
    "rehearsal",
    "tests",
}
"""What at the top of the project does not decide what site.yml does on a machine. Neither do hidden files, which are
settings of tools. Whatever else git tracks is code."""

LEFTOVERS = {".DS_Store", "__pycache__"}

EVERYTHING = "make test"
PROVING = "default"
"""The scenario that runs site.yml from end to end."""

LESS_THAN_PASSED = ("failed", "error", "skipped", "deselected", "xfailed", "xpassed")
NAMED = 5
"""How many changed files a message names."""

Code = Mapping[str, str]
"""SHA-256 of each file, by its name in the project."""


@dataclass(frozen=True)
class Receipt:
    """The command whose tests all passed, when they did (ISO 8601), and the code that they ran."""

    passed: str
    time: str
    code: Code

    def top(self) -> set[str]:
        """Name the files and folders at the top of the project that the code is in."""
        return {name.partition("/")[0] for name in self.code}

    def __str__(self) -> str:
        """Name the command and the time, in local time, for a person."""
        return f"{self.passed}, {datetime.fromisoformat(self.time).astimezone():%Y-%m-%d %H:%M}"


def folder() -> Path:
    """Give the folder of the receipts of this person's own tests; it need not exist."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "flask-fleet" / "receipts"


def _files(root: Path) -> Iterator[Path]:
    """Yield the files of a folder, or the one file that ``root`` is, in no order."""
    if root.is_file():
        yield root
    for path in root.iterdir() if root.is_dir() else ():
        if path.name not in LEFTOVERS:
            yield from _files(path)


def _tracked(project: Path) -> set[str]:
    """Name what git tracks at the top of a project; nothing where there is no git, or no history."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=project, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return set()
    return {name.partition("/")[0] for name in listed.stdout.split("\0")}


def _not_ignored(project: Path) -> set[str]:
    """Name what there is at the top of a project that git would not ignore, by the plain patterns of .gitignore."""
    file = project / ".gitignore"
    patterns = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = {path.name for path in project.iterdir()}
    return {name for name in names if not any(fnmatchcase(name, pattern.rstrip("/")) for pattern in patterns)}


def _top(project: Path) -> set[str]:
    """Name the files and folders at the top of a project that are code."""
    # A release may be a folder without history.
    names = _tracked(project) or _not_ignored(project)
    return {name for name in names - NO_CODE if name and not name.startswith(".")}


def _code_files(project: Path, top: Iterable[str]) -> Iterator[Path]:
    for name in top:
        yield from _files(project / name)


def code_of(project: Path, top: Iterable[str] | None = None) -> Code:
    """Hash the code of a project: all of it, or what ``top`` names of it, whether git tracks each file or not."""
    files = _code_files(project, _top(project) if top is None else top)
    return {
        path.relative_to(project).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }


def last_change(project: Path) -> float:
    """Tell when code was last changed, in seconds since the epoch."""
    return max(path.stat().st_mtime for path in _code_files(project, _top(project)))


def changes(receipt: Receipt, code: Code) -> list[str]:
    """Name the files that are not as they were when the tests passed."""
    return sorted(name for name in receipt.code.keys() | code.keys() if receipt.code.get(name) != code.get(name))


def complete(outcomes: Mapping[str, Sequence[object]]) -> int:
    """Count the tests that passed, by pytest's own reports; 0 when any test failed or was left out."""
    if any(outcomes.get(outcome) for outcome in LESS_THAN_PASSED):
        return 0
    return len(outcomes.get("passed", ()))


def write(file: Path, passed: str, code: Code) -> Path:
    """Write a receipt with the present time, and return its file."""
    receipt = Receipt(passed, datetime.now(UTC).isoformat(timespec="seconds"), code)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(receipt), indent=1) + "\n", encoding="utf-8")
    return file


def read(file: Path) -> Receipt | None:
    """Read a receipt; None when there is none, or half of one."""
    try:
        receipt = Receipt(**json.loads(file.read_text(encoding="utf-8")))
        datetime.fromisoformat(receipt.time)
    except (OSError, TypeError, ValueError):
        return None
    return receipt if isinstance(receipt.code, dict) else None


def proof(project: Path, unproven: bool) -> tuple[str, bool]:
    """Say what proves the code of a project, and tell whether to go ahead; ``unproven`` allows that without proof."""
    files = [project / RELEASE, *sorted(folder().glob("*.json"))]
    receipts = [receipt for file in files if (receipt := read(file))]
    # A folder that is new since may be somebody's app. Code in it does nothing unless what passed has changed too.
    codes = (code_of(project, receipt.top()) for receipt in receipts)
    since = sorted(
        ((changes(receipt, code), receipt) for receipt, code in zip(receipts, codes, strict=True)),
        key=lambda one: len(one[0]),
    )
    if not since:
        said = "No passed test has proved this code, and no receipt came with it"
    elif not since[0][0]:
        return f"Proved: this code passed {since[0][1]}", True
    else:
        changed, receipt = since[0]
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        said = f"This code is not what passed {receipt}: changed since is {', '.join(changed[:NAMED])}{more}"
    if unproven:
        return f"UNPROVEN (ec2_unproven is true): {said}", True
    ways = (
        f"Allowed is the code of a release; to prove this (on Debian, as root): {EVERYTHING}, or in five minutes: "
        f"molecule test -s {PROVING}; or -e ec2_unproven=true"
    )
    return f"{said}. {ways}", False


def _git(*arguments: str) -> list[str]:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.splitlines()


def main() -> None:
    """Write the receipt of `make test` or of `make release`.

    Raises:
        SystemExit: The code of a release was not tested, or is not what is committed.
    """
    parser = argparse.ArgumentParser(prog="python -m preflight.receipts", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("passed", help="note that make test passed").add_argument(
        "start", type=float, help="when it began, in seconds since the epoch"
    )
    steps.add_parser("release", help="write receipt.json, after make test")
    given = parser.parse_args()
    code, tested = code_of(PROJECT), folder() / "test.json"
    if given.step == "passed":
        if last_change(PROJECT) > given.start:
            print("no receipt: code was changed while the tests ran")
        else:
            print(f"receipt: {write(tested, EVERYTHING, code)}")
        return
    receipt = read(tested)
    if receipt is None or changes(receipt, code):
        raise SystemExit(f"{EVERYTHING} has not passed with this code: run it first")
    if _git("status", "--porcelain", "--", ".", f":!{RELEASE}") or code.keys() - set(_git("ls-files")):
        raise SystemExit("Not all of this is committed: a receipt is for what a commit has")
    (PROJECT / RELEASE).write_bytes(tested.read_bytes())
    print(f"{RELEASE}: this code passed {receipt}. Commit it, and that commit is the release")


if __name__ == "__main__":
    main()
