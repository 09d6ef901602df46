"""Ansible lookup: reads from folders of the project what several roles and preflight use, by one of these words.

- ``servers`` are the application servers by their names, as files/servers/NAME/server.yml describes each, with
  ``template``, the path of the template of the file that it reads, and ``image``, the image that it is built into.
- ``databases`` are the kinds of databases by their names, as files/images/KIND/kind.yml describes each, with
  ``sizing``, the path of the template for what follows from its memory.
- ``images`` lists how the images of the project are built.
- ``defaults`` are the default values of the variables of all roles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.lookup import LookupBase

if TYPE_CHECKING:
    from plugins.filter.build_context import Build

PROJECT = Path(__file__).parents[2]
PYTHON = "python"
"""The image that every application server is in or is built on; it brings the packages of those that pip installs."""


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml_load(file.read_text(encoding="utf-8"))
    return content


@cache
def servers(project: Path = PROJECT) -> Mapping[str, Any]:
    """Describe the application servers by their names."""
    found = {file.parent.name: _read(file) for file in sorted(project.glob("files/servers/*/server.yml"))}
    for name, server in found.items():
        folder = project / "files/servers" / name
        server["template"] = str(folder / f"{server['file']}.j2")
        server["image"] = name if (folder / "image").is_dir() else PYTHON
    return found


@cache
def databases(project: Path = PROJECT) -> Mapping[str, Any]:
    """Describe the kinds of databases by their names."""
    files = sorted(project.glob("files/images/*/kind.yml"))
    return {file.parent.name: {**_read(file), "sizing": str(file.with_name("sizing.yml.j2"))} for file in files}


@cache
def images(project: Path = PROJECT) -> list[Build]:
    """List how the images of the project are built, without those of applications and the base."""
    builds: list[Build] = [
        {"name": file.parent.name, "context": str(file.parent.relative_to(project)), "parent": "base"}
        for file in sorted(project.glob("files/images/*/Dockerfile"))
    ]
    locks = {name: f"files/servers/{name}/{name}.txt" for name in servers(project)}
    for build in builds:
        if build["name"] == PYTHON:
            found = {name: lock for name, lock in locks.items() if (project / lock).is_file()}
            build["others"] = {f"servers/{name}.txt": lock for name, lock in found.items()}
    own = [name for name, server in servers(project).items() if server["image"] == name]
    return builds + [{"name": name, "context": f"files/servers/{name}/image", "parent": PYTHON} for name in own]


@cache
def defaults(project: Path = PROJECT) -> Mapping[str, Any]:
    """Read the default values of all roles; one with a template in it is not filled in."""
    return {
        name: value for file in sorted(project.glob("roles/*/defaults/main.yml")) for name, value in _read(file).items()
    }


TERMS: dict[str, Callable[[], Any]] = {
    "databases": databases,
    "defaults": defaults,
    "images": images,
    "servers": servers,
}


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[str], *_: Any, **__: Any) -> list[Any]:
        """Read what is asked for."""
        return [TERMS[term]() for term in terms]
