"""Ansible module: packs a build context into one file, as the engine's own client would."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from docker.utils.build import tar

DOCUMENTATION = """
module: context_archive
short_description: Pack a folder with a Dockerfile into an archive
description:
  - Leaves out what .dockerignore names, so that the archive holds exactly what the image's tag was made from.
options:
  path:
    description: Folder with a Dockerfile.
    type: path
    required: true
attributes:
  check_mode:
    support: none
"""

EXAMPLES = """
- name: Pack the application
  context_archive:
    path: app
"""

RETURN = """
archive:
  description: The archive, in a temporary file that the caller removes.
  type: str
  returned: success
"""


def pack(path: Path) -> Path:
    """Pack a folder.

    Args:
        path: Folder with a Dockerfile.

    Returns:
        A new temporary tar file.
    """
    ignore = path / ".dockerignore"
    exclude = ignore.read_text().splitlines() if ignore.is_file() else []
    with tempfile.NamedTemporaryFile(prefix="context-", suffix=".tar", delete=False) as target:
        with tar(
            str(path), exclude=[line.strip() for line in exclude if line.strip() and not line.startswith("#")]
        ) as archive:
            shutil.copyfileobj(archive, target)
        return Path(target.name)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}})
    module.exit_json(changed=False, archive=str(pack(Path(module.params["path"]))))


if __name__ == "__main__":
    main()
