"""Ansible filters: plan which images there have to be, their content-hashed names, and the order of their builds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from ansible.errors import AnsibleFilterError

if TYPE_CHECKING:
    from plugins.filter.build_context import Build, HashedBuild

TAG_LENGTH = 12
UNKNOWN_BYTES = 256 * 2**20
"""Room for an image that was never here: the largest of ours, PostgreSQL's, adds 217 MB to its parent."""


class PlannedImage(TypedDict):
    """An image with the reference that its content gives it; ``context`` is empty for the bootstrapped base.

    ``dockerfile`` is empty where the folder has its own; there need be no file ``ignore``.
    """

    name: str
    reference: str
    context: str
    dockerfile: str
    ignore: str
    parent_reference: str
    server: str
    others: dict[str, str]


def _tag(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:TAG_LENGTH]


def image_plan(
    builds: list[HashedBuild], repository: str, base: dict[str, str], owned: dict[str, str]
) -> list[PlannedImage]:
    """Name every image by its content and put parents before children; the base is first, unless it is pulled.

    A ``parent`` is the name of another build or ``base``. With the key ``pulled`` the base is that image; otherwise all
    its values are hashed into the name of one that is bootstrapped. ``owned`` is what images' names begin with, by the
    names of their builds, where it is not ``repository``.

    Raises:
        AnsibleFilterError: A parent is unknown, or two entries are each other's parent.
    """
    pulled = base.get("pulled", "")
    base_tag = _tag(*(f"{key}={value}" for key, value in sorted(base.items())))
    references = {"base": pulled or f"{repository}/base:{base_tag}"}
    plan = [] if pulled else [_planned("base", references["base"], "")]
    waiting = list(builds)
    while waiting:
        ready = [build for build in waiting if build["parent"] in references]
        if not ready:
            stuck = ", ".join(f"{build['name']} (from {build['parent']})" for build in waiting)
            raise AnsibleFilterError(f"these images are built from images that are not in the list: {stuck}")
        for build in ready:
            parent = references[build["parent"]]
            owner = owned.get(build["name"], repository)
            references[build["name"]] = f"{owner}/{build['name']}:{_tag(parent, build['digest'])}"
            plan.append(_planned(build["name"], references[build["name"]], parent, build))
        waiting = [build for build in waiting if build["name"] not in references]
    return plan


def _planned(name: str, reference: str, parent: str, build: HashedBuild | None = None) -> PlannedImage:
    return {
        "name": name,
        "reference": reference,
        "parent_reference": parent,
        "context": build["context"] if build else "",
        "dockerfile": build["dockerfile"] if build else "",
        "ignore": build["ignore"] if build else "",
        "server": build["server"] if build else "",
        "others": build["others"] if build else {},
    }


def application_builds(
    applications: list[dict[str, str]], chosen: dict[str, str], servers: Mapping[str, Any], recipe: str
) -> list[Build]:
    """Say how the images of applications are built.

    ``chosen`` is the server of those that do not have gunicorn, by name, and ``recipe`` has a Dockerfile for folders
    that have none.
    """
    named = [(one, chosen.get(one["name"], "gunicorn")) for one in applications]
    return [
        {
            "name": one["name"],
            "context": one["context"],
            "parent": servers[server]["image"],
            "recipe": recipe,
            "server": server,
        }
        for one, server in named
    ]


def images_to_build(plan: list[PlannedImage], wanted: list[str], present: list[str]) -> list[PlannedImage]:
    """Pick the wanted images and their ancestors that the builder does not have, parents first."""
    needed: set[str] = set()
    for image in reversed(plan):
        is_needed = image["name"] in wanted or image["reference"] in needed
        if is_needed and image["reference"] not in present:
            needed |= {image["reference"], image["parent_reference"]}
    return [image for image in plan if image["reference"] in needed - set(present)]


def bytes_to_come(plan: list[PlannedImage], absent: list[str], listed: list[dict[str, Any]]) -> int:
    """Estimate how many bytes images will take that are not there yet.

    Each is reckoned like the largest earlier image of its name, less what it shares with its parent, and one without an
    earlier one as ``UNKNOWN_BYTES``. ``listed`` are all images of the engine.
    """
    sizes: dict[str, int] = {}
    for image in listed:
        for tag in image["RepoTags"] or []:
            name = tag.rpartition(":")[0]
            sizes[name] = max(sizes.get(name, 0), image["Size"])
    total = 0
    for planned in plan:
        if planned["reference"] in absent:
            name, parent = planned["reference"].rpartition(":")[0], planned["parent_reference"].rpartition(":")[0]
            total += sizes[name] - min(sizes[name], sizes.get(parent, 0)) if name in sizes else UNKNOWN_BYTES
    return total


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {
            "application_builds": application_builds,
            "bytes_to_come": bytes_to_come,
            "image_plan": image_plan,
            "images_to_build": images_to_build,
        }
