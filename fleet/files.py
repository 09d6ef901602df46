"""Files as the controller rendered them: checked by the program that will read them, then put in their places."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.system import FleetError, attempt

Check = Callable[[Mapping[str, Path]], None]


@dataclass(frozen=True)
class File:
    """What a file shall say."""

    path: str
    content: str
    mode: str = "0644"
    validate: str = ""
    """Command that fails when the file is wrong; ``%s`` in it is the file beside the one that is there."""

    @property
    def staged(self) -> Path:
        """Name the file that is checked and then takes the place."""
        place = Path(self.path)
        return place.with_name(f".{place.name}.new")

    def is_there(self) -> bool:
        """Tell whether content, mode and owner are as they shall be."""
        try:
            found = Path(self.path).lstat()
        except FileNotFoundError:
            return False
        as_wanted = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == int(self.mode, 8)
        return as_wanted and found.st_uid == os.geteuid() and _text(self.path) == self.content


def place(files: Sequence[File], *, really: bool, check: Check | None = None) -> Mapping[str, Any]:
    """Write the files that are not as they shall be; give what changed as Ansible shows it with --diff.

    ``check`` is called before the first takes its place, with where each is to be read until then. It fails with a
    ``FleetError`` when they do not fit together.

    Raises:
        FleetError: A program refuses what it is to read, or there is no room. Nothing was changed.
    """
    new = [one for one in files if not one.is_there()]
    difference = [_difference(one) for one in new]
    if really and new:
        try:
            for one in new:
                _stage(one)
            if check:
                check({one.path: one.staged if one in new else Path(one.path) for one in files})
            for one in new:
                one.staged.replace(one.path)
        finally:
            for one in new:
                one.staged.unlink(missing_ok=True)
    return {"changed": bool(new), "diff": difference}


def _stage(file: File) -> None:
    staged = file.staged
    try:
        staged.parent.mkdir(parents=True, exist_ok=True)
        staged.unlink(missing_ok=True)
        # With its mode from the beginning: nobody who may not read it ever can.
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(file.content)
        staged.chmod(int(file.mode, 8))
    except OSError as error:
        # The error of a full disk does not name the file.
        raise FleetError(f"{file.path} is not written: {error.strerror}. Nothing was changed.") from error
    if file.validate:
        done = attempt([word.replace("%s", str(staged)) for word in shlex.split(file.validate)])
        if done.returncode:
            raise FleetError(
                f"{file.path} is not written, because it is refused: {(done.stderr or done.stdout).strip()}"
            )


def _text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _difference(file: File) -> dict[str, str]:
    before = _text(file.path) if Path(file.path).is_file() else ""
    return {"before_header": file.path, "before": before, "after_header": file.path, "after": file.content}
