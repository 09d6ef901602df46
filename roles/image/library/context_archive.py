"""Ansible module: packs the files of a build context, those that its tag was made with, into one temporary file."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def pack(path: Path, files: Iterable[str], others: Mapping[str, str]) -> Path:
    """Pack files of a folder, and others by the names that they get, into a new temporary tar file."""
    sources = {name: path / name for name in files} | {name: Path(other) for name, other in others.items()}
    with tempfile.NamedTemporaryFile(prefix="context-", suffix=".tar", delete=False) as target:
        with tarfile.open(fileobj=target, mode="w") as archive:
            for name, source in sources.items():
                archive.add(source, arcname=name, recursive=False)
        return Path(target.name)


def main() -> None:
    """Run the module."""
    arguments = {
        "path": {"type": "path", "required": True},
        "files": {"type": "list", "elements": "str", "required": True},
        # Paths of files outside of it, by their names in the archive.
        "others": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(argument_spec=arguments)
    given = module.params
    module.exit_json(changed=False, archive=str(pack(Path(given["path"]), given["files"], given["others"])))


if __name__ == "__main__":
    main()
