"""Ansible module: lists the packages of Debian and of Python in an image, without running anything of it."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import PurePosixPath
from typing import IO

from ansible.module_utils.basic import AnsibleModule

Package = dict[str, str]
"""Kind (deb or pypi), name, version and, for Debian's, architecture."""

DPKG_STATUS = "var/lib/dpkg/status"
DEBIANS_PYTHON = "usr/lib/python3"
"""Packages of Python in there belong to packages of Debian, which are listed as such."""
COMMAND_TIMEOUT_S = 120


class ImageError(Exception):
    """An image could not be read; the message is for a person."""


def run(*command: str) -> str:
    """Run a command, and give what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
    if done.returncode:
        raise ImageError(f"{' '.join(command[:3])} …: {done.stderr.strip()}")
    return done.stdout.strip()


def debian_packages(status: str) -> Iterator[Package]:
    """Read the packages that are installed from the content of /var/lib/dpkg/status."""
    for paragraph in status.split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        if fields["Status"] and fields["Status"].endswith(" installed"):
            named = {"name": fields["Package"], "version": fields["Version"]}
            yield {"kind": "deb", **named, "architecture": fields["Architecture"]}


def packages_in(archive: IO[bytes]) -> Iterator[Package]:
    """Read the packages of Debian, and those of Python that pip installed, from the tar stream of a file system."""
    with tarfile.open(fileobj=archive, mode="r|") as files:
        for entry in files:
            path = PurePosixPath(entry.name)
            is_python = path.name == "METADATA" and path.parent.suffix == ".dist-info"
            if not entry.isfile() or not (is_python or entry.name == DPKG_STATUS):
                continue
            content = files.extractfile(entry)
            text = content.read().decode("utf-8", "replace") if content else ""
            if entry.name == DPKG_STATUS:
                yield from debian_packages(text)
            elif not path.is_relative_to(DEBIANS_PYTHON):
                fields = HeaderParser().parsestr(text, headersonly=True)
                yield {"kind": "pypi", "name": fields["Name"], "version": fields["Version"]}


def read(reference: str) -> list[Package]:
    """List the packages of an image, sorted."""
    container = run("docker", "create", "--network", "none", "--pull", "never", reference, "none")
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout  # noqa: S101 - asked for above
            found = list(packages_in(export.stdout))
    finally:
        run("docker", "rm", container)
    if not found:
        raise ImageError(f"{reference} has neither a package of Debian nor one of Python that could be read")
    return sorted(found, key=lambda package: tuple(package.values()))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"reference": {"type": "str", "required": True}}, supports_check_mode=True)
    reference = module.params["reference"]
    try:
        identity, created = run("docker", "image", "inspect", "--format", "{{.Id}} {{.Created}}", reference).split()
        result = {"changed": False, "id": identity, "created": created, "packages": read(reference)}
    except (ImageError, OSError, subprocess.TimeoutExpired, tarfile.TarError) as error:
        result = {"failed": True, "msg": str(error)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
