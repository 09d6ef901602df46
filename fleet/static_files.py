"""The static files of the services: brought from their images to where nginx serves them, and removed when old.

Files of other releases stay beside the new ones, because browsers ask for them while the replicas are replaced.
"""

from __future__ import annotations

import filecmp
import gzip
import json
import os
import shutil
import tarfile
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from fleet.engine.base import Engine
from fleet.system import FleetError, write

COMPRESSIBLE = {
    *(".css", ".html", ".ico", ".js", ".json", ".map", ".mjs", ".otf", ".svg", ".ttf", ".txt", ".wasm"),
    *(".webmanifest", ".xml"),
}
"""What gets smaller; pictures, sounds and woff are compressed already."""
LEAST_COMPRESSED = 1024
"""As nginx.conf has it for answers of the app."""
FILE_MODE = 0o644


def bring(engine: Engine, root: Path, service: str, image: str, folder: str) -> None:
    """Add the static files of a service, a folder of its image, to those that nginx serves below ``root``.

    Raises:
        FleetError: The image has no such folder, or something in it that is no file.
    """
    target, new = root / service, root / f"{service}.new"
    target.mkdir(parents=True, exist_ok=True)
    try:
        with engine.folder_of(image, folder) as archive:
            names, changed = _unpack(archive, target, new)
        ours = _compress(target, names, changed, new)
    except (FleetError, OSError) as error:
        new.unlink(missing_ok=True)
        # The error of a full disk does not name the file.
        why = error.strerror if isinstance(error, OSError) else error
        raise FleetError(f"the static files of {service} ({folder} in {image}): {why}") from error
    _note(root, service, {**_noted(root, service), image: sorted(names | ours)})


def prune(root: Path, keep: Mapping[str, Collection[str]]) -> None:
    """Remove the files that no kept image has; ``keep`` gives the images by the services that have them."""
    for record in sorted(root.glob("*.json")):
        service = record.stem
        images = {image: names for image, names in _noted(root, service).items() if image in keep.get(service, ())}
        if not images:
            shutil.rmtree(root / service, ignore_errors=True)
            record.unlink()
            continue
        needed = {name for names in images.values() for name in names}
        for path in sorted((root / service).rglob("*"), reverse=True):
            if path.is_file() and str(path.relative_to(root / service)) not in needed:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        _note(root, service, images)


def _unpack(archive: IO[bytes], folder: Path, new: Path) -> tuple[set[str], set[str]]:
    """Write the files of the tar archive of a folder beside those that are there, each at ``new`` first.

    Returns:
        The names of all its files, and of those that said something else before.
    """
    names, changed = set(), set()
    try:
        with tarfile.open(fileobj=archive, mode="r|") as members:
            for member in members:
                name = _inner_name(member.name)
                if member.isdir():
                    continue
                if not name or not (member.isreg() or member.islnk()):
                    raise FleetError(f"{name or 'it'} is neither a file nor a folder; links lead elsewhere for nginx")
                twin = folder / _inner_name(member.linkname)
                with twin.open("rb") if member.islnk() else closing(_content_of(members, member)) as content:
                    if _put(content, new, folder / name, member.mtime):
                        changed.add(name)
                names.add(name)
    except tarfile.ReadError as error:
        # Nothing came, or not all of it; the engine may know why.
        raise FleetError("there is no file in it") from error
    if not names:
        raise FleetError("there is no file in it")
    return names, changed


def _inner_name(path: str) -> str:
    """Read the name of a file in the archive of a folder, relative to it; empty for the folder itself."""
    name = PurePosixPath(path)
    if name.is_absolute() or ".." in name.parts:
        raise FleetError(f"{path} leads out of the folder")
    return str(PurePosixPath(*name.parts[1:])) if name.parts[1:] else ""


def _content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    if content is None:
        raise FleetError(f"{member.name} has no content")
    return content


def _put(content: IO[bytes], new: Path, target: Path, modified: float) -> bool:
    """Write a file; tell whether it said something else before. One that says the same keeps its time.

    nginx makes the ETag of that time and the size.
    """
    with new.open("wb") as file:
        shutil.copyfileobj(content, file)
    if target.is_file() and filecmp.cmp(new, target, shallow=False):
        new.unlink()
        return False
    if target.is_file() and (target.stat().st_size, int(target.stat().st_mtime)) == (new.stat().st_size, int(modified)):
        # Browsers would take it for what they have.
        modified = time.time()
    _publish(new, target, modified)
    return True


def _publish(new: Path, target: Path, modified: float) -> None:
    """Give a file its place, so that nobody ever sees half of it."""
    os.utime(new, (modified, modified))
    new.chmod(FILE_MODE)
    # Another release may have had a file in the place of a folder, or the other way round.
    if target.is_dir():
        shutil.rmtree(target)
    for parent in target.parents:
        if parent.is_file():
            parent.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    new.replace(target)


def _compress(folder: Path, names: Collection[str], changed: Collection[str], new: Path) -> set[str]:
    """Write a compressed file beside each that gets smaller by it, for gzip_static of nginx; name those of ours."""
    ours = set()
    for name in names:
        file, zipped = folder / name, folder / f"{name}.gz"
        if f"{name}.gz" in names:
            continue
        found = file.stat()
        if file.suffix not in COMPRESSIBLE or found.st_size < LEAST_COMPRESSED:
            # Of another release, whose file said something else.
            zipped.unlink(missing_ok=True)
            continue
        ours.add(f"{name}.gz")
        if name in changed or not zipped.is_file():
            with file.open("rb") as content, new.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as packed:
                shutil.copyfileobj(content, packed)
            _publish(new, zipped, found.st_mtime)
    return ours


def _noted(root: Path, service: str) -> dict[str, list[str]]:
    """Read which image of a service has which files."""
    file = root / f"{service}.json"
    images: dict[str, list[str]] = json.loads(file.read_text()) if file.exists() else {}
    return images


def _note(root: Path, service: str, images: Mapping[str, list[str]]) -> None:
    write(root / f"{service}.json", json.dumps(images))
