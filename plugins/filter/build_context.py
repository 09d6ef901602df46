"""Ansible filters: list which files a build of a folder sees, by BuildKit's own rules, and hash them."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from ansible.errors import AnsibleFilterError

DIGEST_LENGTH = 12
REGEX_CHARACTERS = frozenset(".+()|{}$")
"""Characters that mean nothing in a pattern, and something in a regular expression."""


IGNORE_FILES = ("Dockerfile.dockerignore", ".dockerignore")
"""The first that is there counts: https://docs.docker.com/build/concepts/context/#filename-and-location"""

WAY_OUT = "remove it, or leave it out by a line of .dockerignore"


class Build(TypedDict):
    """An image to have: its name, its folder, and the image it is built FROM.

    A folder without a Dockerfile is built by the one of another folder, its ``recipe``, for the application ``server``.
    ``others`` are files of the project that it sees beside those of its folder, by their names there.
    """

    name: str
    context: str
    parent: str
    recipe: NotRequired[str]
    server: NotRequired[str]
    others: NotRequired[dict[str, str]]


class HashedBuild(TypedDict):
    """A build with the hash of all that goes into it but its parent.

    ``dockerfile`` is empty where the folder has its own; there need be no file ``ignore``.
    """

    name: str
    context: str
    parent: str
    dockerfile: str
    ignore: str
    server: str
    others: dict[str, str]
    digest: str


class ContextError(AnsibleFilterError):  # type: ignore[misc]
    """A folder cannot be built; the message names the file."""


@dataclass(frozen=True)
class Pattern:
    """A line of a .dockerignore file.

    An exception, whose ``!`` is not part of the text, brings back what lines before it leave out.
    """

    text: str
    is_exception: bool
    matches: Callable[[str], bool]


def _expression(pattern: str) -> tuple[str, str]:
    """Translate a pattern as ``compile`` of moby/patternmatcher does, to its kind of match and a regular expression."""
    kind, expression, position, is_first = "exact", "", 0, True
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if pattern.startswith("**", position - 1):
            position += 1 + pattern.startswith("/", position + 1)
            if position < len(pattern):
                expression += "(.*/)?"
                kind = "regex"
            elif kind == "exact":
                kind = "prefix"
            else:
                expression += ".*"
                kind = "regex"
            kind = "suffix" if is_first else kind
        elif character in "*?":
            expression += "[^/]*" if character == "*" else "[^/]"
            kind = "regex"
        elif character in REGEX_CHARACTERS:
            expression += f"\\{character}"
        elif character == "\\":
            # A backslash alone at the end is an error for Python's regular expressions as it is for Go's patterns.
            expression += pattern[position - 1 : position + 1]
            position += 1
            kind = "regex"
        else:
            expression += character if character in "[]^-" else re.escape(character)
            kind = "regex" if character in "[]" else kind
        is_first = False
    return kind, expression


def _matcher(pattern: str) -> Callable[[str], bool]:
    kind, expression = _expression(pattern)
    match kind:
        case "exact":
            return lambda path: path == pattern
        case "prefix":
            return lambda path: path.startswith(pattern.removesuffix("**"))
        case "suffix":
            suffix = pattern[2:]
            return lambda path: path.endswith(suffix) or (suffix.startswith("/") and path == suffix[1:])
    compiled = re.compile(expression, re.ASCII)
    return lambda path: compiled.fullmatch(path) is not None


def ignore_patterns(file: Path) -> list[Pattern]:
    """Read a .dockerignore file, as moby/patternmatcher/ignorefile does.

    Raises:
        ContextError: A line of it is no pattern.
    """
    patterns = []
    content = file.read_text(encoding="utf-8-sig", errors="surrogateescape") if file.is_file() else ""
    for line in content.split("\n"):
        text = line.strip()
        if line.startswith("#") or not text:
            continue
        is_exception = text.startswith("!")
        text = text[is_exception:].strip()
        clean = re.sub("^/+(?=.)", "", posixpath.normpath(text)) if text else ""
        try:
            patterns.append(Pattern(clean, is_exception, _matcher(clean)))
        except re.error:
            clean = ""
        if not clean or (is_exception and clean == "/"):
            raise ContextError(f"{file}: {line!r} is no pattern; see https://docs.docker.com/build/concepts/context/")
    return patterns


def context_files(context: Path | str, ignore: Path | str) -> list[str]:
    """List what a build of a folder sees: files, links, and folders with nothing in them, whose names end in ``/``.

    ``ignore`` names what is left out, if there is such a file.

    Raises:
        ContextError: Something there is no file, link or folder, or has a name that is not UTF-8, or ``ignore`` has a
            line that is no pattern.
    """
    found = _walk(Path(context), "", ignore_patterns(Path(ignore)), ())
    # BuildKit reads these files even where a pattern leaves them out.
    always = [name for name in ("Dockerfile", *IGNORE_FILES) if Path(context, name).is_file()]
    listed = sorted({*found, *always})
    # A folder that is not empty comes right before its first entry.
    return [
        name
        for name, following in zip_longest(listed, listed[1:], fillvalue="")
        if not (name.endswith("/") and following.startswith(name))
    ]


def _walk(context: Path, folder: str, patterns: Sequence[Pattern], parent: Sequence[bool]) -> Iterator[str]:
    for entry in sorted(os.scandir(context / folder), key=lambda one: one.name):
        path = f"{folder}{entry.name}"
        is_left_out, matched = _judge(path, patterns, parent)
        if not is_left_out:
            yield _listed(entry, path)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and not (is_left_out and not any(pattern.is_exception for pattern in patterns)):
            yield from _walk(context, f"{path}/", patterns, matched)


def _judge(path: str, patterns: Sequence[Pattern], parent: Sequence[bool]) -> tuple[bool, list[bool]]:
    """Tell whether a path is left out and which patterns match it, knowing those that match its folder."""
    is_left_out, matched = False, []
    for position, pattern in enumerate(patterns):
        is_match = bool(parent) and parent[position]
        if not is_match and pattern.is_exception == is_left_out:
            is_match = pattern.matches(path)
        matched.append(is_match)
        if is_match:
            is_left_out = not pattern.is_exception
    return is_left_out, matched


def _listed(entry: os.DirEntry[str], path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ContextError(f"{os.fsencode(entry.path)!r} has a name that is not UTF-8: {WAY_OUT}") from error
    if entry.is_dir(follow_symlinks=False):
        return f"{path}/"
    if not entry.is_symlink() and not entry.is_file():
        raise ContextError(f"{entry.path} is no file, link or folder: {WAY_OUT}")
    return path


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:DIGEST_LENGTH]


def _file_parts(context: Path, ignore: Path, others: Mapping[str, str]) -> Iterator[bytes]:
    paths = {name: context / name for name in context_files(context, ignore)}
    paths |= {name: Path(path) for name, path in others.items()}
    for name, path in sorted(paths.items()):
        yield name.encode()
        if path.is_symlink():
            yield b"link " + os.fsencode(path.readlink())
        elif path.is_file():
            executable = bool(path.stat().st_mode & stat.S_IXUSR)
            yield (b"x" if executable else b"-") + path.read_bytes()


def recipe_files(context: Path, recipe: Path | None) -> tuple[Path | None, Path]:
    """Say which Dockerfile is used, if not the folder's own, and which file names what is left out."""
    first, last = (context / name for name in IGNORE_FILES)
    ignore = first if first.is_file() else last
    if recipe is None or (context / "Dockerfile").is_file():
        return None, ignore
    return recipe / "Dockerfile", ignore if ignore.is_file() else recipe / "dockerignore"


def hashed_builds(builds: Iterable[Build], project: str) -> list[HashedBuild]:
    """Add to builds the hash and the files that they are made of; relative paths start from the folder ``project``.

    Raises:
        ContextError: A folder cannot be built.
    """
    hashed: list[HashedBuild] = []
    for build in builds:
        context = Path(project, build["context"])
        dockerfile, ignore = recipe_files(context, Path(project, build["recipe"]) if "recipe" in build else None)
        server = build.get("server", "") if dockerfile else ""
        recipe = [server.encode(), dockerfile.read_bytes()] if dockerfile else []
        others = {name: str(Path(project, path)) for name, path in build.get("others", {}).items()}
        try:
            digest = _digest([*recipe, *_file_parts(context, ignore, others)])
        except OSError as error:
            raise ContextError(f"{error.filename} cannot be read: {error.strerror}") from error
        hashed.append(
            {
                "name": build["name"],
                "context": str(context),
                "parent": build["parent"],
                "dockerfile": str(dockerfile or ""),
                "ignore": str(ignore),
                "server": server,
                "others": others,
                "digest": digest,
            }
        )
    return hashed


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"context_files": context_files, "hashed_builds": hashed_builds}
