"""The files of the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


class _Loader(yaml.CSafeLoader):
    """Reads YAML as Ansible writes it: a tag such as !vault is no error, and its value is not read."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def load_yaml(path: Path) -> Any:
    """Return the content of a YAML file, without its tags."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a subclass of CSafeLoader


def load_mapping(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file that holds a mapping; empty and absent files hold an empty one."""
    content = load_yaml(path) if path.exists() else None
    if content is None:
        return {}
    assert isinstance(content, dict), f"{relative(path)} must hold a mapping"
    return content


def relative(path: Path) -> str:
    """Name a file for a message."""
    return path.relative_to(ROOT).as_posix()
