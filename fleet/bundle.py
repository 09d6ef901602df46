"""The files of a release, as the controller rendered them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from fleet.files import File, place
from fleet.release import COMPOSE_FILE
from fleet.stack import Stack
from fleet.system import FleetError

MARGIN_BYTES = 16 * 1024 * 1024
"""A release's own files have some KB; the rest is for what its containers write before anybody notices."""


def bring(stack: Stack, release: str, files: Sequence[File], *, really: bool) -> Mapping[str, Any]:
    """Write the files of a release that say something else than those that are there.

    They are relative to the stack's folder, compose.yml and nginx.conf in the release's own folder included.

    Raises:
        FleetError: The disk is too full, or a program refuses what it is to read. Nothing was changed.
    """
    folder = stack.releases.folder(release)

    def check(readable: Mapping[str, Path]) -> None:
        stack.engine.check(readable[str(folder / COMPOSE_FILE)], readable[str(folder / "nginx.conf")])

    if really:
        _refuse_full_disk(stack.directory)
        _heal_modes(stack.directory / "nginx")
    return place([changed(one, path=str(stack.directory / one.path)) for one in files], really=really, check=check)


def _refuse_full_disk(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < MARGIN_BYTES:
        raise FleetError(
            f"{MARGIN_BYTES - free} bytes are missing: {free} are free, needed are {MARGIN_BYTES} in {directory} for "
            "the release's files\n"
            "Nothing was changed. Remove what is not needed there, or give the machine a larger disk."
        )


def _heal_modes(folder: Path) -> None:
    """Let nginx read its folder, as another user; an operator's umask may have been strict when it was written."""
    if folder.is_dir():
        for path in (folder, *folder.rglob("*")):
            wanted = 0o755 if path.is_dir() else 0o644
            if path.stat().st_mode & 0o777 != wanted:
                path.chmod(wanted)
