"""Ansible module: puts the secrets of a service into files that only the user of its image can read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: secret_files
short_description: Put the secrets of a service into files that only the user of its image can read
description:
  - The values come with the module's arguments, over a pipe where pipelining is on, and are never in another file.
options:
  path:
    description: Folder for the files. It and the folder around it are closed to everybody else.
    type: path
    required: true
  image:
    description: Image of the service; its user owns the files.
    type: str
    required: true
  secrets:
    description: Values by the names of their files.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
"""

EXAMPLES = """
- name: Hand over the secrets
  secret_files:
    path: /opt/flask-fleet/secrets/app-0123456789ab
    image: flask-fleet/app:0123456789ab
    secrets:
      secret_key: "{{ vault_app_secret_key }}"
  no_log: true
"""

FILE_MODE = 0o400
FOLDER_MODE = 0o500
PARENT_MODE = 0o700
COMMAND_TIMEOUT_S = 60


class UserError(Exception):
    """The user of an image could not be found out; the message is for a person."""


def user_of(image: str) -> int:
    """Ask an image which user its processes run as; it may say so by a name that only its own files explain.

    Args:
        image: Its reference.

    Returns:
        The user's number.

    Raises:
        UserError: The image is not there, or has no program ``id``.
    """
    confined = ["--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--pull", "never"]
    command = ["docker", "run", *confined, "--entrypoint", "id", image, "-u"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
    if done.returncode:
        raise UserError(f"{image} does not say which user it runs as: {done.stderr.strip() or done.stdout.strip()}")
    return int(done.stdout)


def is_right(folder: Path, secrets: Mapping[str, str], owner: int) -> bool:
    """Compare a folder with what it should be.

    Args:
        folder: It need not exist.
        secrets: Values by the names of their files.
        owner: Number of the user that may read them.

    Returns:
        Whether exactly these files are there, and only the owner can read them.
    """
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(secrets):
        return False
    wanted = {folder: FOLDER_MODE, **{folder / name: FILE_MODE for name in secrets}}
    found = {path: path.lstat() for path in wanted}
    return all(
        found[path].st_mode & 0o7777 == mode and found[path].st_uid == owner for path, mode in wanted.items()
    ) and all((folder / name).read_text(encoding="utf-8") == value for name, value in secrets.items())


def write_all(folder: Path, secrets: Mapping[str, str], owner: int) -> None:
    """Make a folder what it should be; nobody else can read a value at any time, and nobody sees half of one.

    Args:
        folder: It need not exist.
        secrets: Values by the names of their files.
        owner: Number of the user that may read them.
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
            "image": {"type": "str", "required": True},
            "secrets": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    folder, secrets = Path(module.params["path"]), module.params["secrets"]
    if module.check_mode and not folder.exists():
        # The image may not be there yet.
        module.exit_json(changed=True)
    changed = False
    try:
        owner = user_of(module.params["image"])
        changed = not is_right(folder, secrets, owner)
        if changed and not module.check_mode:
            write_all(folder, secrets, owner)
    except (UserError, OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
