"""The archive for the builder has exactly the files from which the image got its name."""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from plugins.filter.build_context import context_files
from roles.image.library.context_archive import pack
from tests.project import ROOT

IGNORE_FILES = {
    "none": None,
    "empty": "",
    "some": "tests\n*.log\n**/*.pyc\n",
    "negation": "*\n!wsgi.py\n!hello\nhello/*.pyc\n",
    "comments and blanks": "# What is not needed:\n# notes\n\n  tests  \n*.log\n",
    "a folder and one file of it": "hello\n!hello/views.py\n",
    "itself and the Dockerfile": ".dockerignore\nDockerfile\n",
}


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder to pack; archives go to a temporary folder of the test."""
    (tmp_path / "archives").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "archives"))
    folder = tmp_path / "context"
    for name in ("Dockerfile", "wsgi.py", "run", "noise.log", "hello/views.py", "hello/views.pyc", "tests/test_it.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}\n", encoding="utf-8")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("run")
    (folder / "# notes").touch()
    (folder / "folder").symlink_to("hello")
    (folder / "dangling").symlink_to("nowhere")
    return folder


@pytest.mark.parametrize("ignore", IGNORE_FILES.values(), ids=IGNORE_FILES.keys())
def test_archive_holds_what_the_name_was_made_from(context: Path, ignore: str | None) -> None:
    """Otherwise an image could contain a file whose change does not change the name."""
    if ignore is not None:
        (context / ".dockerignore").write_text(ignore, encoding="utf-8")
    with tarfile.open(pack(context, context_files(context, context / ".dockerignore"), {})) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
        assert sorted(member.name for member in members) == context_files(context, context / ".dockerignore")
        for member in members:
            content = archive.extractfile(member) if member.isfile() else None
            if content:
                assert content.read() == (context / member.name).read_bytes()


def test_ignored_files_stay_at_home(context: Path) -> None:
    """The comparison above would succeed even if both sides ignored nothing."""
    (context / ".dockerignore").write_text("tests\n*.log\n**/*.pyc\n", encoding="utf-8")
    with tarfile.open(pack(context, context_files(context, context / ".dockerignore"), {})) as archive:
        files = {member.name for member in archive.getmembers() if not member.isdir()}
    assert files == {
        "# notes",
        ".dockerignore",
        "Dockerfile",
        "dangling",
        "folder",
        "hello/views.py",
        "link",
        "run",
        "wsgi.py",
    }


def test_links_and_the_executable_bit_survive(context: Path) -> None:
    """Both are part of the name, so both have to arrive."""
    with tarfile.open(pack(context, context_files(context, context / ".dockerignore"), {})) as archive:
        assert archive.getmember("run").mode & 0o111
        assert not archive.getmember("wsgi.py").mode & 0o111
        assert archive.getmember("link").issym()
        assert archive.getmember("link").linkname == "run"
        assert archive.getmember("dangling").linkname == "nowhere"


def test_file_from_elsewhere_has_the_name_that_it_is_to_have(context: Path) -> None:
    """It is packed like a file of the folder."""
    with tarfile.open(pack(context, ["wsgi.py"], {"etc/noise": str(context / "noise.log")})) as archive:
        assert archive.getnames() == ["wsgi.py", "etc/noise"]


def test_two_archives_do_not_meet(context: Path) -> None:
    """Two runs at the same time do not overwrite each other's archive."""
    assert pack(context, context_files(context, context / ".dockerignore"), {}) != pack(
        context, context_files(context, context / ".dockerignore"), {}
    )


def test_ansible_runs_it(tmp_path: Path, context: Path) -> None:
    """Ansible finds the module, which takes a path, returns the archive's, and reports no change."""
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "--module-name=context_archive"]
    arguments = json.dumps({"path": str(context), "files": ["wsgi.py"]})
    command += [
        f"--module-path={ROOT / 'roles/image/library'}",
        f"--args={arguments}",
        f"--tree={tmp_path / 'out'}",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=600, cwd=tmp_path)
    said = json.loads((tmp_path / "out/localhost").read_text(encoding="utf-8"))
    archive = Path(said["archive"])
    try:
        assert said["changed"] is False
        assert tarfile.is_tarfile(archive)
    finally:
        archive.unlink()
