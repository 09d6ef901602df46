"""`_flask_fleet.install`: what pip is told for a folder without a Dockerfile."""

import stat
import sys
from pathlib import Path

import pytest

from _flask_fleet import install
from _flask_fleet.install import InstallError, lacking, stands_alone, steps, wanted

PACKAGE = '[build-system]\nrequires = ["setuptools"]\n[project]\nname = "shop"\nversion = "1"\n'
LIST = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask>=3", "redis"]\n'
LOCK = """# Made by a tool:
#    with this command
click==8.5.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via granian
granian==2.8.7 \\
    --hash=sha256:cc
"""


def write(folder: Path, **files: str) -> Path:
    """Write the files that pip reads."""
    for name, text in files.items():
        (folder / {"requirements": "requirements.txt", "pyproject": "pyproject.toml"}[name]).write_text(text)
    return folder


def test_requirements_count_before_a_project(tmp_path: Path) -> None:
    """A requirements.txt names versions, a pyproject.toml only ranges."""
    write(tmp_path, requirements="flask\n", pyproject=PACKAGE)
    assert wanted(tmp_path) == ["--requirement", str(tmp_path / "requirements.txt")]


@pytest.mark.parametrize(
    ("pyproject", "expected"), [(PACKAGE, ["{folder}"]), (LIST, ["flask>=3", "redis"]), ("[tool.ruff]\n", [])]
)
def test_project_is_installed_when_it_can_be_built(tmp_path: Path, pyproject: str, expected: list[str]) -> None:
    """Many projects only list what they need; nobody could build a package of them."""
    write(tmp_path, pyproject=pyproject)
    assert wanted(tmp_path) == [word.format(folder=tmp_path) for word in expected]


def test_poetry_project_that_is_no_package_is_not_built(tmp_path: Path) -> None:
    """Poetry refuses to build it."""
    write(tmp_path, pyproject=PACKAGE + 'dependencies = ["flask"]\n[tool.poetry]\npackage-mode = false\n')
    assert wanted(tmp_path) == ["flask"]


def test_editable_packages_are_installed_as_copies(tmp_path: Path) -> None:
    """A link into the folder of the build would lead nowhere in the image."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/base.txt").write_text("--editable=./lib\n", encoding="utf-8")
    (tmp_path / "requirements/old.txt").write_bytes("-e git+https://host/größe\n".encode("latin-1"))
    (tmp_path / "requirements/windows.txt").write_text("flask\n-e .\n", encoding="utf-16")
    write(tmp_path, requirements="flask\n-r requirements/base.txt\n  -e .\n-e git+https://host/shop\n# -e is fine\n")
    install.install_copies(tmp_path)
    assert (tmp_path / "requirements/base.txt").read_text(encoding="utf-8") == "./lib\n"
    assert (tmp_path / "requirements/old.txt").read_bytes() == "git+https://host/größe\n".encode("latin-1")
    assert (tmp_path / "requirements/windows.txt").read_text(encoding="utf-16") == "flask\n.\n"
    assert (tmp_path / "requirements.txt").read_text(encoding="utf-8") == (
        "flask\n-r requirements/base.txt\n  .\ngit+https://host/shop\n# -e is fine\n"
    )


def test_requirements_in_utf_16_are_read(tmp_path: Path) -> None:
    """PowerShell's > writes it, and pip reads it."""
    (tmp_path / "requirements.txt").write_text("-r base.txt\n", encoding="utf-16")
    assert not stands_alone(tmp_path)
    (tmp_path / "requirements.txt").write_text("flask\n", encoding="utf-16")
    assert stands_alone(tmp_path)


@pytest.mark.parametrize(("files", "said"), [({}, "has neither"), ({"pyproject": "[project"}, "is no TOML")])
def test_nothing_to_read_is_one_sentence(tmp_path: Path, files: dict[str, str], said: str) -> None:
    """A build shows the message, far away from the folder."""
    with pytest.raises(InstallError, match=said):
        wanted(write(tmp_path, **files))


@pytest.mark.parametrize(
    ("files", "alone"),
    [
        ({"requirements": "flask==3.1 \\\n    --hash=sha256:aa\nredis; python_version > '3'\n"}, True),
        ({"requirements": "-r base.txt\n"}, False),
        ({"requirements": "flask\n-c limits.txt\n"}, False),
        ({"requirements": "--constraint limits.txt\n"}, False),
        ({"requirements": "-e .\n"}, False),
        ({"requirements": ".\n"}, False),
        ({"requirements": "./vendor/thing.whl\n"}, False),
        ({"requirements": "vendor/thing.whl\n"}, False),
        ({"pyproject": LIST}, True),
        ({"pyproject": PACKAGE}, False),
        ({}, False),
    ],
)
def test_what_leads_to_other_files_is_installed_with_them(tmp_path: Path, files: dict[str, str], alone: bool) -> None:
    """Other requirements are installed before the rest of the app is there, and so only when they change."""
    assert stands_alone(write(tmp_path, **files)) is alone


@pytest.mark.parametrize(
    ("installed", "expected"),
    [(set(), ["click", "granian"]), ({"click"}, ["granian"]), ({"granian", "click"}, [])],
)
def test_only_what_is_lacking_is_added(installed: set[str], expected: list[str]) -> None:
    """The app was tested with its own versions; every line keeps its hashes."""
    rest = lacking(LOCK, installed.__contains__)
    assert [line.partition("==")[0] for line in rest.splitlines() if not line.startswith((" ", "#"))] == expected
    assert rest.count("--hash") == 2 * ("click" in expected) + ("granian" in expected)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the paths of a build into a folder."""
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers/granian.txt").write_text(LOCK)
    monkeypatch.setattr(install, "LOCKS", tmp_path / "servers")
    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(install, "REST", tmp_path / "rest.txt")
    return tmp_path


def test_build_has_two_steps(image: Path) -> None:
    """The first installs the packages, if it can; the second installs what the server needs besides."""
    folder = write(image, requirements="flask\n")
    listed = ["--requirement", str(folder / "requirements.txt")]
    server = ["--no-deps", "--require-hashes", "--requirement", str(image / "rest.txt")]
    assert list(steps(folder, "")) == [listed]
    assert list(steps(folder, "granian")) == [server]
    assert list(steps(folder, "uwsgi")) == []


def test_first_step_leaves_to_the_second_what_it_cannot_do(image: Path) -> None:
    """A requirement in another file of the folder cannot be read before that file is there."""
    folder = write(image, requirements="-r base.txt\n")
    assert list(steps(folder, "")) == []
    assert next(steps(folder, "granian")) == ["--requirement", str(folder / "requirements.txt")]


def program(file: Path, script: str) -> Path:
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("is_proxied", [False, True])
def test_one_call_is_enough_for_a_dockerfile_of_somebodys_own(
    image: Path, monkeypatch: pytest.MonkeyPatch, is_proxied: bool
) -> None:
    """It makes the environments, trusts the CA that the build was given, and leaves no pip and no unreadable file."""
    said = image / "said"
    pip = program(image / "pip", f'echo "${{PIP_CERT:-none}} $*" >> {said}')
    # An environment with pip in it takes seconds.
    quick = f'[ "$*" != "-m venv {image}/pip-venv" ] || exec mkdir "$3"\nexec {sys.executable} "$@"'
    monkeypatch.setattr(sys, "executable", str(program(image / "python", quick)))
    (image / "ca").write_text("-----BEGIN" * is_proxied, encoding="utf-8")
    monkeypatch.delenv("PIP_CERT", raising=False)
    monkeypatch.setattr(install, "CA", image / "ca")
    monkeypatch.setattr(install, "VENV", image / "venv")
    monkeypatch.setattr(install, "PIP_VENV", image / "pip-venv")
    monkeypatch.setattr(install, "PIP", (str(pip), "install"))
    monkeypatch.chdir(write(image, requirements="flask\n"))
    (image / "shop.py").write_text("app = None\n", encoding="utf-8")
    (image / "shop.py").chmod(0o600)
    assert install.main([".", "granian"]) == 0
    assert (image / "shop.py").stat().st_mode & stat.S_IROTH
    assert list(image.glob("__pycache__/shop.*.pyc"))
    trusted = str(image / "ca") if is_proxied else "none"
    assert said.read_text(encoding="utf-8").splitlines() == [
        f"{trusted} install --requirement {image}/requirements.txt",
        f"{trusted} install --no-deps --require-hashes --requirement {image}/rest.txt",
    ]
    assert (image / "venv/bin/python").exists()
    assert not (image / "pip-venv").exists()
