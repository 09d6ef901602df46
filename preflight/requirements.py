"""Checks, before a build, that a folder without a Dockerfile says in a way that pip reads what to install."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REQUIREMENTS = "requirements.txt"
PROJECT = "pyproject.toml"

LOCKS = {
    "uv.lock": "uv export --no-dev --no-emit-project --output-file requirements.txt",
    # Poetry 2 exports only with a plugin.
    "poetry.lock": "poetry self add poetry-plugin-export && poetry export --output requirements.txt",
    "pdm.lock": "pdm export --prod --output requirements.txt",
    "Pipfile.lock": "pipenv requirements > requirements.txt",
    "Pipfile": "pipenv lock && pipenv requirements > requirements.txt",
}
"""Files of other tools, each with the command that writes what is in it for pip."""

BOMS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Beginnings of a file by which pip knows its encoding: pip/_internal/req/req_file.py."""

CODING = re.compile(rb"^#.*coding[:=]\s*[-\w.]+", re.MULTILINE)
"""A comment that tells pip the encoding."""


def requirement_problems(context: Path) -> Iterator[str]:
    """Check what a folder without a Dockerfile has for pip; yield a sentence for each problem, with the way out."""
    if (context / REQUIREMENTS).is_file():
        yield from _encoding_problems(context / REQUIREMENTS)
        return
    for lock, command in LOCKS.items():
        if (context / lock).is_file():
            yield f"pip does not read {context / lock}, so it would install other versions: allowed is to run {command}"
            return
    if (context / PROJECT).is_file():
        yield from _project_problems(context / PROJECT)
    elif found := sorted((context / "requirements").glob("*.txt")):
        named = " or ".join(f"requirements/{path.name}" for path in found)
        yield f"in {context} is no {REQUIREMENTS}: allowed is one with the line -r {named}"
    else:
        yield f"in {context} is no Dockerfile, and no {REQUIREMENTS} or {PROJECT} to install instead"


def _encoding_problems(file: Path) -> Iterator[str]:
    raw = file.read_bytes()
    if raw.startswith(BOMS) or CODING.search(b"\n".join(raw.splitlines()[:2])):
        return
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        yield f"{file}, line {line} is no UTF-8: allowed is UTF-8, or a first line that names another encoding"


def _project_problems(file: Path) -> Iterator[str]:
    try:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        yield f"{file} is no TOML: {error}"
        return
    poetry = content.get("tool", {}).get("poetry", {})
    if poetry.get("package-mode") is False and "dependencies" not in content.get("project", {}):
        yield (
            f"{file} lists its dependencies for Poetry alone, which pip does not read: "
            f"allowed is to run {LOCKS['poetry.lock']}, or dependencies in [project]"
        )
