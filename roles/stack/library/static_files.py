"""Ansible module: brings a service's static files from its image to where nginx serves them, and removes old ones."""

from __future__ import annotations

import filecmp
import gzip
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, cast

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: static_files
short_description: Bring the static files of a service from its image to nginx, or remove old ones
description:
  - Files of other releases stay beside the new ones, because browsers ask for them while the replicas are replaced.
options:
  path:
    description: Folder for the static files of all services, each in a folder of its own.
    type: path
    required: true
  action:
    description:
      - C(bring) adds the files of one image; C(forget) removes those that no kept image has.
    type: str
    required: true
    choices: [bring, forget]
  service:
    description: Name of the service, for C(bring).
    type: str
  image:
    description: Its image, for C(bring).
    type: str
  folder:
    description: The folder in the image, relative to its working directory, for C(bring).
    type: str
  keep:
    description: Images by the services that have them, for C(forget).
    type: dict
    default: {}
attributes:
  check_mode:
    support: none
"""

EXAMPLES = """
- name: Bring the static files
  static_files:
    path: /opt/flask-fleet/static
    action: bring
    service: app
    image: flask-fleet/app:0123456789ab
    folder: hello/static
"""

COMPRESSIBLE = {
    *(".css", ".html", ".ico", ".js", ".json", ".map", ".mjs", ".otf", ".svg", ".ttf", ".txt", ".wasm"),
    *(".webmanifest", ".xml"),
}
"""What gets smaller; pictures, sounds and woff are compressed already."""
LEAST_COMPRESSED = 1024
"""As nginx.conf has it for answers of the app."""
FILE_MODE = 0o644
COMMAND_TIMEOUT_S = 900
MARK = "flask-fleet.static-copy"
"""Label of a container that only lends its files; its value is the folder that they are for."""


class CopyError(Exception):
    """The files could not be brought; the message is for a person."""


def run(*command: str) -> str:
    """Run a command.

    Args:
        command: Program and arguments.

    Returns:
        What it printed.

    Raises:
        CopyError: It failed; the message has what it printed on stderr.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
    if done.returncode:
        raise CopyError(f"{' '.join(command[:3])} …: {done.stderr.strip()}")
    return done.stdout.strip()


def inner_name(path: str) -> str:
    """Read the name of a file in the archive of a folder.

    Args:
        path: As the archive has it, with the folder's own name first.

    Returns:
        The name relative to the folder; empty for the folder itself.

    Raises:
        CopyError: It leads out of the folder.
    """
    name = PurePosixPath(path)
    if name.is_absolute() or ".." in name.parts:
        raise CopyError(f"{path} leads out of the folder")
    return str(PurePosixPath(*name.parts[1:])) if name.parts[1:] else ""


def put(content: IO[bytes], new: Path, target: Path, modified: float) -> bool:
    """Write a file so that nobody ever sees half of it.

    Args:
        content: What it shall say.
        new: Where to write it first, on the same file system.
        target: The file.
        modified: When it was changed last; the ETag is made of this and the size.

    Returns:
        Whether it said something else before; one that says the same keeps its time.
    """
    with new.open("wb") as file:
        shutil.copyfileobj(content, file)
    if target.is_file() and filecmp.cmp(new, target, shallow=False):
        new.unlink()
        return False
    if target.is_file() and (target.stat().st_size, int(target.stat().st_mtime)) == (new.stat().st_size, int(modified)):
        # Browsers would take it for what they have.
        modified = time.time()
    os.utime(new, (modified, modified))
    new.chmod(FILE_MODE)
    make_room(target)
    new.replace(target)
    return True


def make_room(target: Path) -> None:
    """Make the folder of a file, where another release had a file in place of a folder or the other way round.

    Args:
        target: The file.
    """
    if target.is_dir():
        shutil.rmtree(target)
    for parent in target.parents:
        if parent.is_file():
            parent.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)


def unpack(archive: IO[bytes], folder: Path, new: Path) -> tuple[set[str], set[str]]:
    """Write the files of an archive beside those that are there.

    Args:
        archive: A tar archive of a folder, as a stream.
        folder: Where to.
        new: Where to write each file first.

    Returns:
        The names of all its files, and of those that said something else before.

    Raises:
        CopyError: It has something else than files and folders.
    """
    names, changed = set(), set()
    with tarfile.open(fileobj=archive, mode="r|") as members:
        for member in members:
            name = inner_name(member.name)
            if member.isdir():
                continue
            if not name or not (member.isreg() or member.islnk()):
                raise CopyError(f"{name or 'it'} is neither a file nor a folder; links lead elsewhere for nginx")
            twin = folder / inner_name(member.linkname)
            with twin.open("rb") if member.islnk() else closing(content_of(members, member)) as content:
                if put(content, new, folder / name, member.mtime):
                    changed.add(name)
            names.add(name)
    return names, changed


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Open a file of an archive.

    Args:
        archive: The archive.
        member: The file.

    Returns:
        Its content.

    Raises:
        CopyError: It has none.
    """
    content = archive.extractfile(member)
    if content is None:
        raise CopyError(f"{member.name} has no content")
    return content


def copy_out(container: str, source: str, folder: Path, new: Path) -> tuple[set[str], set[str]]:
    """Copy a folder out of a container.

    Args:
        container: Its id; it need not run.
        source: The folder in it.
        folder: Where to.
        new: Where to write each file first.

    Returns:
        As ``unpack``.

    Raises:
        CopyError: There is no such folder, or something in it that is no file.
    """
    command = ["docker", "cp", f"{container}:{source}", "-"]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as copying,
    ):
        try:
            names, changed = unpack(cast("IO[bytes]", copying.stdout), folder, new)
        except tarfile.ReadError:
            # Nothing came, or not all of it: docker says why.
            names, changed = set(), set()
        except (CopyError, OSError):
            copying.kill()
            raise
        if copying.wait() or not names:
            said.seek(0)
            raise CopyError(said.read().decode(errors="replace").strip() or "there is no file in it")
    return names, changed


def compress(folder: Path, names: Collection[str], changed: Collection[str], new: Path) -> set[str]:
    """Write a compressed file beside each that gets smaller by it, for nginx's gzip_static.

    Args:
        folder: Where the files are.
        names: The files.
        changed: Those of them that said something else before.
        new: Where to write each file first.

    Returns:
        The names of the compressed files that are ours.
    """
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
            os.utime(new, (found.st_mtime, found.st_mtime))
            new.chmod(FILE_MODE)
            make_room(zipped)
            new.replace(zipped)
    return ours


def remove_left_behind(root: Path) -> None:
    """Remove the container of a run that was killed.

    Args:
        root: Folder of all services' files.
    """
    for left in run("docker", "ps", "--all", "--quiet", "--filter", f"label={MARK}={root}").split():
        run("docker", "rm", "--force", left)


def bring(root: Path, service: str, image: str, folder: str) -> bool:
    """Add the static files of an image to those that nginx serves.

    Args:
        root: Folder of all services' files.
        service: Name of the service.
        image: Its image.
        folder: The folder in the image.

    Returns:
        Whether anything changed.

    Raises:
        CopyError: The image has no such folder, or something in it that is no file.
    """
    remove_left_behind(root)
    # It is never started. A registry that has an image of the same name is not asked.
    options = ("--pull", "never", "--network", "none", "--label", f"{MARK}={root}")
    container = run("docker", "create", *options, image, "true")
    try:
        working = run("docker", "inspect", "--format", "{{.Config.WorkingDir}}", container)
        source = str(PurePosixPath(working or "/", folder))
        names, changed = copy_out(container, source, root / service, root / f"{service}.new")
    except CopyError as error:
        raise CopyError(f"the static files of {service} ({folder} in {image}): {error}") from error
    finally:
        run("docker", "rm", "--force", container)
    ours = compress(root / service, names, changed, root / f"{service}.new")
    note(root, service, {**noted(root, service), image: sorted(names | ours)})
    return bool(changed)


def noted(root: Path, service: str) -> dict[str, list[str]]:
    """Read which image has which files.

    Args:
        root: Folder of all services' files.
        service: Name of the service.

    Returns:
        Names of files by image.
    """
    file = root / f"{service}.json"
    images: dict[str, list[str]] = json.loads(file.read_text()) if file.exists() else {}
    return images


def note(root: Path, service: str, images: Mapping[str, list[str]]) -> None:
    """Write down which image has which files.

    Args:
        root: Folder of all services' files.
        service: Name of the service.
        images: Names of files by image.
    """
    new = root / f"{service}.json.new"
    new.write_text(json.dumps(images))
    new.replace(root / f"{service}.json")


def forget(root: Path, keep: Mapping[str, Collection[str]]) -> bool:
    """Remove the files that no kept image has.

    Args:
        root: Folder of all services' files.
        keep: Images by the services that have them.

    Returns:
        Whether anything was removed.
    """
    removed = False
    for record in sorted(root.glob("*.json")):
        service = record.stem
        images = {image: names for image, names in noted(root, service).items() if image in keep.get(service, ())}
        if not images:
            shutil.rmtree(root / service, ignore_errors=True)
            record.unlink()
            removed = True
            continue
        needed = {name for names in images.values() for name in names}
        for path in sorted((root / service).rglob("*"), reverse=True):
            if path.is_file() and str(path.relative_to(root / service)) not in needed:
                path.unlink()
                removed = True
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        note(root, service, images)
    return removed


def main() -> None:
    """Run the module."""
    text = {"type": "str"}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "action": {"type": "str", "required": True, "choices": ["bring", "forget"]},
            "service": text,
            "image": text,
            "folder": text,
            "keep": {"type": "dict", "default": {}},
        },
        required_if=[("action", "bring", ("service", "image", "folder"))],
    )
    # nginx is another user.
    os.umask(0o022)
    given = module.params
    root = Path(given["path"])
    try:
        if given["action"] == "forget":
            remove_left_behind(root)
            changed = forget(root, given["keep"])
        else:
            (root / given["service"]).mkdir(parents=True, exist_ok=True)
            changed = bring(root, given["service"], given["image"], given["folder"])
    except (CopyError, OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=str(error))
        return
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
