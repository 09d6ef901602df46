"""The files of the project, as the policy tests read them."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.project import ROOT, load_mapping, load_yaml, relative

__all__ = ["ROOT", "load_mapping", "load_yaml", "relative"]

ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir() and not path.name.startswith("."))

SERVICE = {
    "name": "app",
    "context": "app",
    "path": "/",
    "replicas": 3,
    "server": "gunicorn",
    "memory": "128m",
    "cpus": "0.5",
}
"""An entry of stack_services that says everything and is in order."""


ACCESSORY = {
    "name": "db",
    "kind": "postgresql",
    "memory": "256m",
    "password": secrets.token_hex(16),
}
"""An entry of accessory_services that is in order."""


def files(*patterns: str) -> list[Path]:
    """Return the files that match, without those that Python generates."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern)}
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def mappings(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping of a YAML document, however deep."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from mappings(child)


def tasks(entries: Any) -> Iterator[dict[str, Any]]:
    """Yield every task of a task list, those of blocks included."""
    for entry in entries or []:
        inner = [entry[part] for part in ("block", "rescue", "always") if part in entry]
        if not inner:
            yield entry
        for part in inner:
            yield from tasks(part)
