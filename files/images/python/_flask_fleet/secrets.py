"""Secrets for apps that read them from the environment: those whose names are in capitals."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path

NAME = re.compile(r"[A-Z][A-Z0-9_]*")


def into_environment(environment: MutableMapping[str, str]) -> None:
    """Read the files of the secrets whose names are those of environment variables.

    Only this process and its children get them: the container's own environment, which everybody may see who may ask
    the engine, holds none. ``SECRETS_FOLDER`` may name another folder than ``/run/secrets``.
    """
    folder = Path(environment.get("SECRETS_FOLDER", "/run/secrets"))
    for file in sorted(folder.glob("*")):
        if NAME.fullmatch(file.name) and file.is_file():
            # A line break that an editor left is not part of it.
            environment[file.name] = file.read_text(encoding="utf-8").rstrip("\r\n")
