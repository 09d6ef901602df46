"""The commands of a page of the documentation, as they are written there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PATTERN = re.compile(r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading above it, its language, and its lines."""

    heading: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Read the fenced blocks of a page, in order."""
    heading, found = "", []
    for match in PATTERN.finditer(page.read_text(encoding="utf-8")):
        if match["heading"]:
            heading = match["heading"]
        else:
            found.append(Block(heading, match["language"], match["text"]))
    return found
