"""The files of a release, as the controller rendered them: checked by who will read them, then put in their places."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.release import COMPOSE_FILE
from fleet.stack import Stack
from fleet.system import FleetError

MARGIN_BYTES = 16 * 1024 * 1024
"""A release's own files have some KB; the rest is for what its containers write before anybody notices."""


@dataclass(frozen=True)
class File:
    """A file of the stack's folder."""

    path: str
    """Relative to the stack's folder."""
    content: str


def bring(stack: Stack, release: str, files: Sequence[File], *, really: bool) -> Mapping[str, Any]:
    """Write the files that say something else than those that are there.

    Args:
        stack: The stack.
        release: Id of the release that they are of.
        files: All that it needs, compose.yml and nginx.conf in its own folder included.
        really: False only compares.

    Returns:
        Whether something changed, and how, as Ansible's --diff shows it.

    Raises:
        FleetError: The disk is too full, or a program refuses what it is to read. Nothing was changed.
    """
    new = [one for one in files if _now(stack.directory / one.path) != one.content]
    if really:
        _heal_modes(stack.directory / "nginx")
        if new:
            _refuse_full_disk(stack.directory)
            _write(stack, release, new)
    return {"changed": bool(new), "diff": [_difference(stack.directory / one.path, one.content) for one in new]}


def _write(stack: Stack, release: str, files: Sequence[File]) -> None:
    """Write beside what is there, have it checked, and only then put it in its place."""
    folder = stack.releases.folder(release)
    places = {one.path: stack.directory / one.path for one in files}
    beside = {path: place.with_name(f".{place.name}.new") for path, place in places.items()}
    try:
        for one in files:
            beside[one.path].parent.mkdir(parents=True, exist_ok=True)
            beside[one.path].write_text(one.content, encoding="utf-8")
            if one.path.endswith(".py"):
                compile(one.content, one.path, "exec")
        release_files = (str((folder / name).relative_to(stack.directory)) for name in (COMPOSE_FILE, "nginx.conf"))
        stack.engine.check(*(beside.get(path, stack.directory / path) for path in release_files))
        for path, place in places.items():
            beside[path].replace(place)
    except SyntaxError as error:
        raise FleetError(f"{error.filename}: {error}") from error
    except OSError as error:
        # The error of a full disk does not name the file.
        raise FleetError(f"the files of release {release} are not written: {error.strerror}") from error
    finally:
        for left in beside.values():
            left.unlink(missing_ok=True)


def _refuse_full_disk(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < MARGIN_BYTES:
        raise FleetError(
            f"{MARGIN_BYTES - free} bytes are missing in {directory} for the release's files: {free} are free, needed "
            f"are {MARGIN_BYTES}.\nNothing was changed. Remove what is not needed there, or give the machine a larger "
            "disk."
        )


def _heal_modes(folder: Path) -> None:
    """Let nginx read its folder, as another user; an operator's umask may have been strict when it was written."""
    if folder.is_dir():
        for path in (folder, *folder.rglob("*")):
            wanted = 0o755 if path.is_dir() else 0o644
            if path.stat().st_mode & 0o777 != wanted:
                path.chmod(wanted)


def _now(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _difference(file: Path, content: str) -> dict[str, str]:
    return {"before_header": str(file), "before": _now(file) or "", "after_header": str(file), "after": content}
