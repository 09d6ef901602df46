"""Ansible module: puts the secrets of a service into files that only its user can read.

The values come with the module's arguments, over a pipe where pipelining is on, and are never in another file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

FILE_MODE = 0o400
FOLDER_MODE = 0o500
PARENT_MODE = 0o700


def is_right(folder: Path, secrets: Mapping[str, str], owner: int) -> bool:
    """Tell whether exactly these files are in a folder, and only the owner can read them.

    The folder need not exist.
    """
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(secrets):
        return False
    wanted = {folder: FOLDER_MODE, **{folder / name: FILE_MODE for name in secrets}}
    found = {path: path.lstat() for path in wanted}
    return all(
        found[path].st_mode & 0o7777 == mode and found[path].st_uid == owner for path, mode in wanted.items()
    ) and all((folder / name).read_text(encoding="utf-8") == value for name, value in secrets.items())


def write_all(folder: Path, secrets: Mapping[str, str], owner: int) -> None:
    """Make a folder as ``is_right`` expects it.

    Nobody else can read a value at any time, and nobody sees half of one.
    """
    folder.parent.mkdir(mode=PARENT_MODE, exist_ok=True)
    folder.parent.chmod(PARENT_MODE)
    folder.mkdir(mode=PARENT_MODE, exist_ok=True)
    for name, value in secrets.items():
        new = folder / f".{name}.new"
        new.unlink(missing_ok=True)
        new.touch(mode=0o600, exist_ok=False)
        new.write_text(value, encoding="utf-8")
        new.chmod(FILE_MODE)
        os.chown(new, owner, -1)
        new.replace(folder / name)
    for path in folder.iterdir():
        if path.name not in secrets:
            path.unlink()
    os.chown(folder, owner, -1)
    folder.chmod(FOLDER_MODE)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "owner": {"type": "int", "required": True},
            # Values by the names of their files.
            "secrets": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    folder, secrets = Path(module.params["path"]), module.params["secrets"]
    try:
        changed = not is_right(folder, secrets, module.params["owner"])
        if changed and not module.check_mode:
            write_all(folder, secrets, module.params["owner"])
        result: dict[str, bool | str] = {"changed": changed}
    except OSError as error:
        result = {"failed": True, "msg": str(error)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
