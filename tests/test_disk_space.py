"""A deploy that does not fit on the disk is refused before it begins."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from plugins.modules.disk_space import shortages
from roles.image.filter_plugins.image_plan import UNKNOWN_BYTES, PlannedImage, bytes_to_come

MB = 1_000_000


def free(path: Path) -> int:
    """Return how much a file system has left."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def need(path: Path, size: int, what: str = "images") -> dict[str, object]:
    """Describe a need as the tasks do."""
    return {"path": str(path), "bytes": size, "what": what}


def test_what_fits_is_no_shortage(tmp_path: Path) -> None:
    """A folder that is made later counts as part of its parent."""
    assert shortages([need(tmp_path, 1), need(tmp_path / "later" / "still", 1)]) == []


def test_message_says_how_many_bytes_are_missing(tmp_path: Path) -> None:
    """The person learns how much to remove."""
    (message,) = shortages([need(tmp_path, free(tmp_path) + 500 * MB, "the new images")])
    missing = int(re.match(r"(\d+) bytes are missing", message)[1])  # type: ignore[index]
    # Others write to the same disk meanwhile.
    assert abs(missing - 500 * MB) < 100 * MB
    assert f"in {tmp_path} for the new images" in message


def test_needs_on_one_file_system_are_added_up(tmp_path: Path) -> None:
    """The archive and the layers may each fit alone."""
    two_thirds = free(tmp_path) * 2 // 3
    assert shortages([need(tmp_path, two_thirds)]) == []
    assert len(shortages([need(tmp_path, two_thirds), need(tmp_path / "other", two_thirds)])) == 1


def planned(name: str, context: str, parent: str) -> PlannedImage:
    """Plan an image with a Dockerfile of its own."""
    return {
        "name": name,
        "reference": f"ff/{name}:2",
        "context": context,
        "dockerfile": "",
        "ignore": "",
        "parent_reference": parent,
        "server": "",
        "others": {},
    }


PLAN: list[PlannedImage] = [planned("python", "p", "ff/base:1"), planned("app", "a", "ff/python:2")]
LISTED: list[dict[str, Any]] = [
    {"RepoTags": ["ff/python:1"], "Size": 128 * MB},
    {"RepoTags": ["ff/app:1"], "Size": 135 * MB},
    {"RepoTags": ["ff/app:0"], "Size": 131 * MB},
    {"RepoTags": None, "Size": 999 * MB},
]


def test_next_version_is_as_large_as_the_one_before_without_what_it_shares() -> None:
    """The parent's layers are on the disk already, or are counted with the parent."""
    assert bytes_to_come(PLAN, ["ff/app:2"], LISTED) == 7 * MB


def test_first_version_gets_a_round_sum() -> None:
    """Nobody knows the size of an image that was never built."""
    assert bytes_to_come(PLAN, ["ff/python:2", "ff/app:2"], []) == 2 * UNKNOWN_BYTES
    assert bytes_to_come(PLAN, [], LISTED) == 0
