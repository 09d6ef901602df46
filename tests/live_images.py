"""Images of the project on this machine's engine, made as a playbook makes them, once for all tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.playbook import Outcome

TOLD = "they are "


def make_images(folder: Path, recipes: Sequence[str], applications: Mapping[str, str] | None = None) -> dict[str, str]:
    """Make the images that the engine does not have, and return their names.

    Args:
        folder: Where to write a playbook.
        recipes: Folders of files/images.
        applications: Folders of apps by the name of their image.
    """
    variables = {"image_recipes": list(recipes), "image_applications": dict(applications or {})}
    show = {"ansible.builtin.debug": {"msg": f"{TOLD}{{{{ image_references | to_json }}}}"}}
    roles = [{"role": "image", "vars": variables}]
    play = folder / "images.yml"
    play.write_text(json.dumps([{"hosts": "app", "gather_facts": False, "roles": roles, "post_tasks": [show]}]))
    made = Outcome(["ansible-playbook", str(play), "--inventory=inventories/local"])
    assert made.ok, made.said
    line = next(line for line in made.said.splitlines() if TOLD in line)
    references: dict[str, str] = json.loads(line.partition(TOLD)[2])
    return references
