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
        why: What the version before had, or lacked.
        source: Where that is written.
    """

    kind: str
    package: str
    least: str
    why: str
    source: str


def is_older(kind: str, version: str, least: str) -> bool:
    """Tell whether a ``deb`` or ``pypi`` version is less than the least, as the packages' own tools compare them."""
    if kind == "pypi":
        return Version(version) < Version(least)
    return subprocess.run(["dpkg", "--compare-versions", version, "lt", least], check=False).returncode == 0


def below(floors: Sequence[Floor], contents: Mapping[str, Iterable[Mapping[str, str]]]) -> Iterator[Finding]:
    """Find the packages that are too old, and the floors whose package is in no image.

    Such a floor would say nothing for ever. ``contents`` are packages by the name of their image, each with ``kind``,
    ``name`` and ``version``.
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
