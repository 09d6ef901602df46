"""A build of a folder sees the files that BuildKit sends, however a .dockerignore is written."""

import io
import os
import random
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2 import Template

from plugins.filter.build_context import ContextError, context_files, hashed_builds
from preflight.services import RECIPE
from tests.project import ROOT, load_mapping

NAMES = [
    *("a", "b", "a.py", "b.txt", "[a]", "a*", ".env", "src/a", "src/a.py", "src/shop/a.py", "src/shop/b"),
    *("x/a", "x/.env", "x/y/b", "x/y/z/a.py", "foo/a", "foo/bar/baz", "foo/bar/a.py"),
]
CORPUS = [
    *("*\n!**/*.py", "*\n!src\nsrc/a", "*\n!src/shop", "**", "**\n!a.py", "src/**", "src/**\n!src/a.py", "**/a"),
    *("**/shop", "**/shop/**", "x/**/a.py", "x/*/b", "*/a.py", "*/*/a.py", "?", "[a-b]", "[^a]", "\\[a\\]", "a\\*"),
    *("/a", "/src/", "./a", "src/../a", "# a\n a \n\n#b", "!a", "*\n!a\na\n!a", "src\n!src/shop/*.py", "**a", "a**"),
    *("\ufeffa", "a\r\nb\r", "**/.env*\n**/*.py[co]", "foo/bar\n!foo/bar/baz", "foo\n!foo\nfoo/bar", "empty", "link"),
    *("/", "!/", "!/..", "a/..", "!a/.."),
]
WORDS = [
    *("a", "b", "src", "shop", "x", "y", "z", "foo", "bar", "*", "**", "?", "*.py", "**.py", "a*", "[a-x]", "[^a]"),
    *("\\*", "\\a", "?.py", "*a*", ".env", ".*", "empty", "link", "[a]", "\\[a\\]", "..", "."),
]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Make a folder to build."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    for name in ("empty", "x/empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("src")
    (tmp_path / "src/dangling").symlink_to("nowhere")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n", encoding="utf-8")
    return tmp_path


def any_patterns(seed: int) -> str:
    """Write a random .dockerignore."""
    dice = random.Random(seed)  # noqa: S311 (it has to be the same in every run)
    lines = []
    for _ in range(dice.choice([1, 2, 2, 3, 4])):
        path = "/".join(dice.choices(WORDS, k=dice.choice([1, 1, 2, 2, 3, 4])))
        lines.append("!" * (dice.random() < 0.35) + "/" * (dice.random() < 0.15) + path + "/" * (dice.random() < 0.15))
    return "\n".join(lines)


def copied_by_buildkit(context: Path) -> list[str] | None:
    """Build the folder into an archive, and list its files as ``context_files`` does; None when BuildKit refuses."""
    command = ["docker", "build", "--quiet", "--output", "type=tar,dest=-", str(context)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    if b"excludepatterns" in done.stderr:
        return None
    done.check_returncode()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = {f"{one.name.strip('/')}{'/' * one.isdir()}" for one in archive.getmembers()} - {"/"}
    parents = {f"{parent}/" for name in names for parent in Path(name.rstrip("/")).parents}
    return sorted(names - parents)


@pytest.mark.docker
@pytest.mark.parametrize("ignore", [*CORPUS, *map(any_patterns, range(int(os.environ.get("PATTERNS", "20"))))])
def test_files_are_those_that_buildkit_takes(context: Path, ignore: str) -> None:
    """With PATTERNS=500 it tries as many more lists of patterns."""
    (context / ".dockerignore").write_text(ignore, encoding="utf-8", newline="")
    copied = copied_by_buildkit(context)
    if copied is None:
        with pytest.raises(ContextError, match="is no pattern"):
            context_files(context, context / ".dockerignore")
        return
    found = {*context_files(context, context / ".dockerignore")}
    # BuildKit needs these for itself, whether or not they are in the image.
    assert found - {*copied} <= {"Dockerfile", ".dockerignore"}
    assert {*copied} <= found


def test_exception_of_everything_is_kept_at_any_depth(context: Path) -> None:
    """People usually name so what the build needs."""
    (context / ".dockerignore").write_text("*\n!**/*.py\n", encoding="utf-8")
    found = context_files(context, context / ".dockerignore")
    assert {name for name in found if name.endswith(".py")} == {name for name in NAMES if name.endswith(".py")}


@pytest.mark.parametrize("line", ["[", "a[", "!", "!/", "!/..", "a\\", "[b-a]"])
def test_line_that_is_no_pattern_is_named(context: Path, line: str) -> None:
    """The engine would report it in the middle of the deploy."""
    (context / ".dockerignore").write_text(f"a\n{line}\n", encoding="utf-8")
    with pytest.raises(ContextError, match=r"\.dockerignore: .* is no pattern"):
        context_files(context, context / ".dockerignore")


def test_ignore_file_of_the_dockerfile_counts(context: Path) -> None:
    """It overrides the folder's, as in BuildKit."""
    (context / ".dockerignore").write_text("*\n", encoding="utf-8")
    (context / "Dockerfile.dockerignore").write_text("src\n", encoding="utf-8")
    (build,) = hashed_builds([{"name": "app", "context": str(context), "parent": "base"}], "/")
    assert build["ignore"] == str(context / "Dockerfile.dockerignore")


def add_fifo(folder: Path) -> None:
    """Make a file on which a reader would wait."""
    os.mkfifo(folder / "odd")


def add_socket(folder: Path) -> None:
    """Leave a socket, as some servers do."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "odd"))


def add_latin_1(folder: Path) -> None:
    """Make a file whose name is in Latin-1."""
    Path(os.fsdecode(bytes(folder) + b"/odd\xe9")).touch()


@pytest.mark.parametrize("add", [add_fifo, add_socket, add_latin_1])
def test_what_no_image_can_hold_is_named(context: Path, add: Callable[[Path], None]) -> None:
    """An ignore file can leave it out."""
    (context / "src/odd").mkdir()
    add(context / "src/odd")
    with pytest.raises(ContextError, match=r"src/odd/odd.*: remove it, or leave it out by a line of \.dockerignore"):
        context_files(context, context / ".dockerignore")
    (context / ".dockerignore").write_text("src/odd/*\n", encoding="utf-8")
    assert "src/odd/" in context_files(context, context / ".dockerignore")


def test_recipe_is_the_roles() -> None:
    """Preflight looks at a folder with the role's own recipe."""
    assert load_mapping(ROOT / "roles/image/vars/main.yml")["__image_application_recipe"] == RECIPE


@pytest.mark.parametrize("name", ["__image_scratch", "__image_shipment"])
def test_runs_for_two_stacks_do_not_meet_on_the_builder(name: str) -> None:
    """Each stack has its own lock, so one run could remove the folder from which the other builds."""
    path = Template(load_mapping(ROOT / "roles/image/vars/main.yml")[name])
    assert len({path.render(image_owner=owner) for owner in ("shop", "blog")}) == 2
