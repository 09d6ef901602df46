"""Installs what an app folder asks for, and the application server that it does not bring, in a Dockerfile."""

from __future__ import annotations

import codecs
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

LOCKS = Path("/opt/fleet/servers")
VENV = Path("/opt/venv")
PIP_VENV = Path("/opt/pip")
PIP = (
    *(f"{PIP_VENV}/bin/pip", "--python", f"{VENV}/bin/python"),
    *("install", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"),
)
CA = Path("/run/secrets/ca")
"""Of a proxy that re-signs TLS: where `RUN --mount=type=secret,id=ca` puts it, never in a layer."""
REST = Path("/tmp/server.txt")  # noqa: S108 (of a build, where nobody else is)
EDITABLE = re.compile(r"^([ \t]*)(?:-e|--editable)[ \t=]+", re.MULTILINE)
OTHER_FILES = re.compile(r"^\s*(?:-[rce]|--requirement|--constraint|--editable|\.|/|[\w.-]+/|file:)", re.MULTILINE)
"""What in a requirements.txt leads to other files of the folder."""


class InstallError(Exception):
    """The folder cannot be installed; the message is for a person."""


def wanted(folder: Path) -> list[str]:
    """Return pip's arguments for what a folder asks for.

    A requirements.txt counts before a pyproject.toml. A pyproject.toml with a build system is a package and installed
    as one; of another only the dependencies are, as uv does it.

    Raises:
        InstallError: The folder has neither file, or the pyproject.toml is no TOML.
    """
    if (folder / "requirements.txt").is_file():
        return ["--requirement", str(folder / "requirements.txt")]
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise InstallError(f"{folder} has neither a requirements.txt nor a pyproject.toml")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InstallError(f"{file} is no TOML: {error}") from error
    dependencies: list[str] = content.get("project", {}).get("dependencies", [])
    is_package = content.get("tool", {}).get("poetry", {}).get("package-mode", True)
    return [str(folder)] if "build-system" in content and is_package else dependencies


def _read(file: Path) -> tuple[str, str]:
    """Read what is for pip, which knows UTF-16 by its first bytes; of another encoding only ASCII matters here."""
    raw = file.read_bytes()
    encoding = "utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    return raw.decode(encoding, errors="surrogateescape"), encoding


def stands_alone(folder: Path) -> bool:
    """Tell whether a requirements.txt or pyproject.toml is all that pip needs; other changes install nothing again.

    A folder that has neither of the two does not stand alone.
    """
    requirements = folder / "requirements.txt"
    if requirements.is_file():
        return not OTHER_FILES.search(_read(requirements)[0])
    return (folder / "pyproject.toml").is_file() and str(folder) not in wanted(folder)


def install_copies(folder: Path) -> None:
    """Have pip install packages that are listed as editable like others: the folder is not in the final image."""
    for file in folder.rglob("*.txt"):
        text, encoding = _read(file)
        plain = EDITABLE.sub(r"\1", text)
        if plain != text:
            file.write_bytes(plain.encode(encoding, errors="surrogateescape"))


def lacking(lock: str, is_installed: Callable[[str], bool]) -> str:
    """Pick what is not there yet: an app's own version of a package is the one that it was tested with.

    ``lock`` is a list of requirements, each with its hashes in the lines that follow; ``is_installed`` gets their
    names. The result is the list without those that are installed.
    """
    blocks = re.findall(r"^[^\s#].*\n(?:[ \t]+.*\n)*", lock, re.MULTILINE)
    return "".join(block for block in blocks if not is_installed(block.partition("==")[0]))


def _is_installed(name: str) -> bool:
    folders = [str(path) for path in VENV.glob("lib/python3*/site-packages")]
    return any(True for _ in metadata.distributions(name=name, path=folders))


def steps(folder: Path, server: str) -> Iterator[list[str]]:
    """Yield the arguments of each ``pip install`` that is still to run.

    ``folder`` may have only the app's requirements.txt and pyproject.toml; ``server`` is empty in the first of two
    calls.
    """
    done = VENV / "installed"
    if not done.exists() and (server or stands_alone(folder)):
        install_copies(folder)
        if arguments := wanted(folder):
            yield arguments
        done.touch()
    # uWSGI is in the image itself.
    if server and (lock := LOCKS / f"{server}.txt").is_file():
        REST.write_text(lacking(lock.read_text(encoding="utf-8"), _is_installed), encoding="utf-8")
        if REST.stat().st_size:
            yield ["--no-deps", "--require-hashes", "--requirement", str(REST)]


def make_environments() -> None:
    """Make the environment of the app, and one for pip, so that the app's has none."""
    for folder, options in ((PIP_VENV, ()), (VENV, ("--without-pip",))):
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "venv", *options, folder], check=True)


def finish(folder: Path) -> None:
    """Remove pip, and make what came readable and compiled.

    A container that cannot write would compile it again at every start.
    """
    shutil.rmtree(PIP_VENV)
    # Whoever checked it out with a strict umask has files that the user `app` could not read.
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    compiling = (sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    # A package may hold a file for another Python, which does not compile.
    subprocess.run([*compiling, VENV / "lib", folder], check=False)


def main(arguments: Sequence[str]) -> int:
    """Run pip, and return its exit status; 1 when the folder cannot be installed.

    The arguments are the folder and, in the only call or in the second of two, the server.
    """
    folder, server = Path(arguments[0]).resolve(), arguments[1] if len(arguments) > 1 else ""
    trust = {"PIP_CERT": str(CA), "SSL_CERT_FILE": str(CA)} if CA.is_file() and CA.stat().st_size else {}
    try:
        make_environments()
        for step in steps(folder, server):
            subprocess.run([*PIP, *step], check=True, cwd=folder, env=os.environ | trust)
        if server:
            finish(folder)
    except InstallError as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
