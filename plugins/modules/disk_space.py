"""Ansible module: refuses to go on when a disk has too little room for what will be written to it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def existing(path: Path) -> Path:
    """Find the path or its nearest parent that exists, which tells on which file system the path is or will be."""
    return next(one for one in (path, *path.parents) if one.exists())


def shortages(needs: Sequence[dict[str, Any]]) -> list[str]:
    """Compare what will be written with the room there is; give a sentence for each file system that has too little."""
    by_device: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for need in needs:
        by_device[existing(Path(need["path"])).stat().st_dev].append(need)
    found = []
    for together in by_device.values():
        room = os.statvfs(existing(Path(together[0]["path"])))
        # f_bavail does not count what is kept back for root, which is no room for a deploy.
        free, needed = room.f_bavail * room.f_frsize, sum(need["bytes"] for need in together)
        if free < needed:
            parts = ", ".join(f"{need['bytes']} in {need['path']} for {need['what']}" for need in together)
            found.append(f"{needed - free} bytes are missing: {free} are free, needed are {parts}")
    return found


def main() -> None:
    """Run the module."""
    need = {
        "path": {"type": "path", "required": True},
        "bytes": {"type": "int", "required": True},
        # For the message.
        "what": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={"needs": {"type": "list", "elements": "dict", "required": True, "options": need}},
        supports_check_mode=True,
    )
    found = shortages(module.params["needs"])
    if found:
        advice = "Nothing was changed. Remove what is not needed there, or give the machine a larger disk."
        module.fail_json(msg="\n".join([*found, advice]))
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
