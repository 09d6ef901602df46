"""The releases of a stack on its disk: which there are, which one is live, and which can be gone back to."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fleet.system import FleetError, utc, write

COMPOSE_FILE = "compose.yml"
LIVE = {COMPOSE_FILE: COMPOSE_FILE, "nginx.conf": "nginx/nginx.conf"}
"""Where the files of a release go when it becomes the live one."""
MARK = "activated"
"""In the folder of a release that worked; says who deployed it."""
MOUNTED = {"secrets": "/run/secrets", "servers": "/etc/fleet"}
"""Folders whose folders are named by their content, and where a replica finds its own of each."""
FRESH_S = 3600
"""For how long what nobody has deployed yet is kept: somebody may be about to."""


@dataclass(frozen=True)
class Release:
    """One that could be gone back to."""

    id: str
    activated: str
    """When it was deployed last, in UTC."""
    by: str


class Releases:
    """Those of the stack in one folder."""

    def __init__(self, directory: Path) -> None:
        """Name the folder, in which the live compose.yml is."""
        self.directory = directory

    def folder(self, release: str | None) -> Path:
        """Give the folder of a release; None is the live one."""
        return self.directory / "releases" / release if release else self.directory

    def has_files(self, release: str) -> bool:
        """Tell whether there is more of a release than its folder."""
        return (self.folder(release) / COMPOSE_FILE).exists()

    def live(self) -> str:
        """Name the live release by its files; empty before the first deploy."""
        try:
            content = b"".join((self.directory / name).read_bytes() for name in LIVE.values())
        except FileNotFoundError:
            return ""
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()[:12]

    def kept(self) -> list[Release]:
        """List the releases that could be gone back to, newest first."""
        marks = sorted(
            (self.directory / "releases").glob(f"*/{MARK}"), key=lambda mark: mark.stat().st_mtime, reverse=True
        )
        return [Release(mark.parent.name, utc(mark.stat().st_mtime), mark.read_text().strip()) for mark in marks]

    def last_that_worked(self) -> str:
        """Name it; empty without one. The live one may be of a deploy that was killed."""
        return next((one.id for one in self.kept()), "")

    def activate(self, release: str) -> None:
        """Make a rendered release the live one; nothing that runs changes by it.

        Raises:
            FleetError: Its files cannot be copied; both of the release before are still there.
        """
        targets = {source: self.directory / target for source, target in LIVE.items()}
        try:
            (self.directory / "nginx").mkdir(exist_ok=True)
            for source, target in targets.items():
                shutil.copyfile(self.folder(release) / source, f"{target}.new")
            # Only now, so that a full disk leaves both files of the release before.
            for target in targets.values():
                Path(f"{target}.new").replace(target)
        except OSError as error:
            raise FleetError(f"release {release} is not made the live one: {error.strerror}") from error

    def note_that_it_works(self, release: str, who: str) -> None:
        """Let it be gone back to."""
        write(self.folder(release) / MARK, f"{who}\n")

    def nginx_conf_sha1(self, release: str | None) -> str:
        """Name its nginx.conf as nginx names the one that it runs with."""
        file = self.folder(release) / ("nginx.conf" if release else LIVE["nginx.conf"])
        return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()

    def prune(self, kept: Collection[str]) -> None:
        """Remove the folders of other releases."""
        for path in (self.directory / "releases").iterdir():
            if path.name not in kept:
                shutil.rmtree(path)

    def prune_mounted(self, mounts: Collection[tuple[str, str]]) -> None:
        """Remove the secrets, and the configurations of servers, that no release needs any more.

        Each mount of the releases to keep is where it is mounted, and its folder.
        """
        for folder, target in MOUNTED.items():
            needed = {Path(source).name for mounted_at, source in mounts if mounted_at == target}
            for path in (self.directory / folder).glob("*"):
                if path.name not in needed:
                    shutil.rmtree(path)

    def about_to_be_deployed(self) -> list[str]:
        """List the releases that were rendered a short time ago and never worked."""
        since = time.time() - FRESH_S
        folders = (self.directory / "releases").glob("*")
        return [path.name for path in folders if not (path / MARK).exists() and path.stat().st_mtime > since]
