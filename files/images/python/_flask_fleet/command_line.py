"""Has Flask's own command line find the application that the service names."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

PROJECT_FILES = (".env", ".flaskenv")
"""What Flask reads, if python-dotenv is there; it leaves alone what is set already."""


def into_environment(environment: MutableMapping[str, str], folder: Path) -> None:
    """Set ``FLASK_APP`` to the application that ``APP`` names, unless the environment or the project does."""
    if "APP" in environment and not any(_names_one(folder / name) for name in PROJECT_FILES):
        environment.setdefault("FLASK_APP", environment["APP"])


def _names_one(file: Path) -> bool:
    return file.is_file() and "FLASK_APP" in file.read_text(encoding="utf-8", errors="replace")
