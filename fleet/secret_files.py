"""The secrets of services and databases, in files that only the user of a container can read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_MODE = 0o400
FOLDER_MODE = 0o500
PARENT_MODE = 0o700


@dataclass(frozen=True)
class SecretFolder:
    """What a folder of secrets shall have; it and the folder around it are closed to everybody else."""

    path: str
    owner: int
    """Number of the user that may read it."""
    secrets: Mapping[str, str]
    """Values by the names of their files."""

    def is_right(self) -> bool:
        """Tell whether exactly these files are there, and only the owner can read them."""
        folder = Path(self.path)
        if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(self.secrets):
            return False
        modes = {folder: FOLDER_MODE, **{folder / name: FILE_MODE for name in self.secrets}}
        found = {path: path.lstat() for path in modes}
        are_closed = all(found[path].st_mode & 0o7777 == mode for path, mode in modes.items())
        are_owned = all(one.st_uid == self.owner for one in found.values())
        return are_closed and are_owned and all(_says(folder / name, value) for name, value in self.secrets.items())

    def write(self) -> None:
        """Make it so. Nobody else can read a value at any time, and nobody sees half of one."""
        folder = Path(self.path)
        folder.parent.mkdir(mode=PARENT_MODE, parents=True, exist_ok=True)
        folder.parent.chmod(PARENT_MODE)
        folder.mkdir(mode=PARENT_MODE, exist_ok=True)
        for name, value in self.secrets.items():
            new = folder / f".{name}.new"
            new.unlink(missing_ok=True)
            new.touch(mode=0o600, exist_ok=False)
            new.write_text(value, encoding="utf-8")
            new.chmod(FILE_MODE)
            os.chown(new, self.owner, -1)
            new.replace(folder / name)
        for path in folder.iterdir():
            if path.name not in self.secrets:
                path.unlink()
        os.chown(folder, self.owner, -1)
        folder.chmod(FOLDER_MODE)


def hand_over(folders: Sequence[SecretFolder], *, really: bool) -> Mapping[str, Any]:
    """Write the folders that are not as they shall be; tell whether there are any."""
    wrong = [one for one in folders if not one.is_right()]
    for one in wrong if really else ():
        one.write()
    return {"changed": bool(wrong)}


def _says(file: Path, value: str) -> bool:
    return file.read_text(encoding="utf-8") == value
