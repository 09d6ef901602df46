"""Ansible module: tells whether a file is a backup of a kind of accessory, and keeps it under its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def problem(path: Path, kind: str, magic: Mapping[str, str]) -> str:
    """Say in a sentence why a file is no backup of a kind; empty when it is one, as far as its beginning says."""
    allowed = f"allowed is a file that playbooks/backup.yml made of {kind}"
    if not path.is_file():
        return f"backup is {path}: there is no such file; {allowed}"
    with path.open("rb") as file:
        begins = file.read(max(map(len, magic.values())))
    found = [name for name, of_kind in magic.items() if begins.startswith(of_kind.encode())]
    if found == [kind]:
        return ""
    return f"backup is {path}: that is {f'one of {found[0]}' if found else 'no backup'}; {allowed}"


def keep(path: Path, name: Path) -> None:
    """Give a file its name, when all of it is on the disk and nobody else can read it."""
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.rename(name)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "kind": {"type": "str", "required": True},
            # How a backup of each kind begins.
            "magic": {"type": "dict", "required": True},
            # Without it the file is only looked at.
            "keep_as": {"type": "path"},
        },
        supports_check_mode=True,
    )
    path, name = Path(module.params["path"]), module.params["keep_as"]
    try:
        wrong = problem(path, module.params["kind"], module.params["magic"])
        result = {"failed": True, "msg": wrong} if wrong else {"changed": bool(name), "bytes": path.stat().st_size}
        if name and not wrong and not module.check_mode:
            keep(path, Path(name))
    except OSError as error:
        result = {"failed": True, "msg": str(error)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
