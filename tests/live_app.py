"""Versions of the sample app, to be deployed in its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.project import ROOT, load_mapping

INVENTORY = "inventories/aws"
OTHER_SERVER = os.environ.get("FAULTS_SERVER", "")
"""The application server to try in the place of the inventory's."""


def services(app: Path, **changes: Any) -> list[dict[str, Any]]:
    """Describe the services with another folder in the place of app/.

    Args:
        app: The folder.
        **changes: Other values of the first service.

    Returns:
        A value of ``stack_services``.
    """
    known = load_mapping(ROOT / INVENTORY / "group_vars/all/services.yml")["stack_services"]
    server = {"server": OTHER_SERVER} if OTHER_SERVER else {}
    return [known[0] | server | {"context": str(app)} | changes, *known[1:]]


def copy_app(folder: Path) -> Path:
    """Copy the sample app, to be changed.

    Args:
        folder: Where to.

    Returns:
        The copy.
    """
    copy = folder / "app"
    shutil.copytree(ROOT / "app", copy, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    return copy


def edit(file: Path, old: str, new: str) -> None:
    """Replace text in a file.

    Args:
        file: The file.
        old: What must be there.
        new: What comes in its place.
    """
    text = file.read_text()
    assert old in text, file
    file.write_text(text.replace(old, new))
