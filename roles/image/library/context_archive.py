"""Ansible module: packs a build context into one file, as the engine's own client would."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from docker.utils.build import tar

DOCUMENTATION = """
module: context_archive
short_description: Pack a folder into an archive
description:
  - Leaves out what the image's tag was made without.
options:
  path:
    description: The folder.
    type: path
    required: true
  ignore:
    description: File that names what is left out, as a .dockerignore does. There need be none.
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
    ignore: app/.dockerignore
"""

RETURN = """
archive:
  description: The archive, in a temporary file that the caller removes.
  type: str
  returned: success
"""


def pack(path: Path, ignore: Path) -> Path:
    """Pack a folder.

    Args:
        path: The folder.
        ignore: File that names what is left out, if there is such a file.

    Returns:
        A new temporary tar file.
    """
    exclude = ignore.read_text().splitlines() if ignore.is_file() else []
    with tempfile.NamedTemporaryFile(prefix="context-", suffix=".tar", delete=False) as target:
        with tar(
            str(path), exclude=[line.strip() for line in exclude if line.strip() and not line.startswith("#")]
        ) as archive:
            shutil.copyfileobj(archive, target)
        return Path(target.name)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={name: {"type": "path", "required": True} for name in ("path", "ignore")})
    module.exit_json(changed=False, archive=str(pack(Path(module.params["path"]), Path(module.params["ignore"]))))


if __name__ == "__main__":
    main()
