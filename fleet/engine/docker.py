"""Commands of Docker that the stack and its databases share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from fleet.system import attempt, run

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
HASH_LABEL = "com.docker.compose.config-hash"

Container = Mapping[str, Any]
"""As Docker inspects it."""


def compose(directory: Path, file: Path, *options: str) -> list[str]:
    """Begin a command of Compose for the project in a folder."""
    return ["docker", "compose", *options, "--project-directory", str(directory), "--file", str(file)]


def config_hashes(command: Sequence[str]) -> dict[str, str]:
    """Read what Compose would label the containers of each service with."""
    lines = run([*command, "config", "--hash", "*"]).splitlines()
    return dict(cast("tuple[str, str]", tuple(line.split())) for line in lines)


def containers(labels: Mapping[str, str]) -> list[str]:
    """List the ids of containers with these labels, dead ones too."""
    filters = [word for label, value in labels.items() for word in ("--filter", f"label={label}={value}")]
    return run(["docker", "ps", "--all", "--quiet", "--no-trunc", *filters]).split()


def inspect(ids: Sequence[str]) -> list[Container]:
    """Inspect containers; those that are gone meanwhile are left out."""
    if not ids:
        return []
    # It fails where one is gone, and prints the others all the same.
    found: list[Container] = json.loads(attempt(["docker", "inspect", "--type", "container", *ids]).stdout or "[]")
    return found


def stop(ids: Sequence[str]) -> None:
    """Have containers finish what they have, as long as their own stop time says, and remove them."""
    if ids:
        run(["docker", "stop", *ids])
        remove(ids)


def remove(ids: Sequence[str]) -> None:
    """Remove containers at once, if they are there."""
    if ids:
        run(["docker", "rm", "--force", *ids])


def log(container: str, *options: str) -> str:
    """Give the log of a container, errors included."""
    return attempt(["docker", "logs", *options, container], stderr=subprocess.STDOUT).stdout


def images() -> list[str]:
    """List all images, each as NAME:TAG."""
    return run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split()
