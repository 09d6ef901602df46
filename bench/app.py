"""Versions of the sample app that are deployed in its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from bench.project import ROOT, load_mapping

INVENTORY = "inventories/aws"
OTHER_SERVER = os.environ.get("FAULTS_SERVER", "")
"""The application server to try in the place of the inventory's."""


def services(app: Path, **changes: Any) -> list[dict[str, Any]]:
    """Return a value of ``stack_services`` in which the first service has another folder and other values."""
    known = load_mapping(ROOT / INVENTORY / "group_vars/all/services.yml")["stack_services"]
    server = {"server": OTHER_SERVER} if OTHER_SERVER else {}
    return [known[0] | server | {"context": str(app)} | changes, *known[1:]]


def copy_app(folder: Path) -> Path:
    """Copy the sample app into a folder, so that a test can change it."""
    copy = folder / "app"
    shutil.copytree(ROOT / "app", copy, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    return copy


def edit(file: Path, old: str, new: str) -> None:
    """Replace text in a file, which must contain it."""
    text = file.read_text()
    assert old in text, file
    file.write_text(text.replace(old, new))
