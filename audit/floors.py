"""Compares what is in the images with the least versions that are known to be safe."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import Version

from audit.report import Finding


@dataclass(frozen=True)
class Floor:
    """A least version.

    Attributes:
        kind: ``deb`` or ``pypi``.
        package: Its name.
        least: The least version.
        why: What the version before had, or lacked.
        source: Where that is written.
    """

    kind: str
    package: str
    least: str
    why: str
    source: str


def is_older(kind: str, version: str, least: str) -> bool:
    """Compare two versions as the packages' own tools do.

    Args:
        kind: ``deb`` or ``pypi``.
        version: What is there.
        least: What should be.

    Returns:
        Whether the version is too old.
    """
    if kind == "pypi":
        return Version(version) < Version(least)
    return subprocess.run(["dpkg", "--compare-versions", version, "lt", least], check=False).returncode == 0


def below(floors: Sequence[Floor], contents: Mapping[str, Iterable[Mapping[str, str]]]) -> Iterator[Finding]:
    """Find what is too old.

    Args:
        floors: The least versions.
        contents: Packages by the name of their image, each with kind, name and version.

    Yields:
        Each package that is too old, and each floor whose package is in no image: it would say nothing for ever.
    """
    for floor in floors:
        found = [
            (image, package["version"])
            for image, packages in contents.items()
            for package in packages
            if package["kind"] == floor.kind and canonicalize_name(package["name"]) == canonicalize_name(floor.package)
        ]
        for image, version in found:
            if is_older(floor.kind, version, floor.least):
                yield Finding(
                    floor.why, image, f"{floor.package} {version} is older than {floor.least} ({floor.source})"
                )
        if not found:
            yield Finding(floor.why, "audit/floors.yml", f"{floor.package} is in no image: is it called otherwise now?")
