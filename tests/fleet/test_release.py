"""The releases of a stack on its disk: which is live, which can be gone back to, and what is removed with one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from fleet.release import FRESH_S, LIVE, Releases
from fleet.system import FleetError, write


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    for release in ("one", "two"):
        folder = tmp_path / "releases" / release
        folder.mkdir(parents=True)
        (folder / "compose.yml").write_text(f"name: {release}\n")
        (folder / "nginx.conf").write_text(f"# {release}\n")
    return Releases(tmp_path)


def test_activating_puts_both_files_in_place(releases: Releases) -> None:
    releases.activate("two")
    assert (releases.directory / "compose.yml").read_text() == "name: two\n"
    assert (releases.directory / "nginx" / "nginx.conf").read_text() == "# two\n"
    files = [releases.directory / "releases/two" / name for name in LIVE]
    both = subprocess.run(["sha1sum"], input=b"".join(map(Path.read_bytes, files)), capture_output=True, check=True)
    assert releases.live() == both.stdout.decode()[:12]
    conf = subprocess.run(["sha1sum", files[1]], capture_output=True, check=True).stdout.decode().split()[0]
    assert releases.nginx_conf_sha1(None) == releases.nginx_conf_sha1("two") == conf != releases.nginx_conf_sha1("one")


def test_full_disk_leaves_both_files_of_the_release_before(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of each release would be a mixture that nobody deployed."""
    releases.activate("one")
    before = releases.live()

    def copy_until_full(source: Path, target: str) -> None:
        if source.name == "nginx.conf":
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(target).write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", copy_until_full)
    with pytest.raises(FleetError, match=r"^release two is not made the live one: No space left on device$"):
        releases.activate("two")
    assert releases.live() == before


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    note = tmp_path / "note"
    write(note, "before")
    (tmp_path / "note.new").symlink_to("/dev/full")
    with pytest.raises(FleetError, match=r"note is not written: No space left on device"):
        write(note, "after")
    assert [one.name for one in tmp_path.iterdir()] == ["note"]
    assert note.read_text() == "before"


def test_only_what_once_worked_can_be_gone_back_to(releases: Releases) -> None:
    releases.activate("one")
    assert releases.kept() == []
    assert releases.last_that_worked() == ""
    releases.note_that_it_works("one", "jane: hotfix")
    releases.note_that_it_works("two", "joe")
    os.utime(releases.folder("one") / "activated", (0, 0))
    assert [(one.id, one.by) for one in releases.kept()] == [("two", "joe"), ("one", "jane: hotfix")]
    assert releases.kept()[1].activated == "1970-01-01 00:00:00"
    assert releases.last_that_worked() == "two"


def test_a_folder_without_a_stack_has_no_release(tmp_path: Path) -> None:
    releases = Releases(tmp_path / "nowhere")
    assert releases.live() == ""
    assert releases.kept() == []
    assert releases.about_to_be_deployed() == []


def test_a_release_that_was_rendered_a_moment_ago_waits_for_its_deploy(releases: Releases) -> None:
    """Another deploy may end in between and must not remove it; after an hour nobody will deploy it any more."""
    releases.note_that_it_works("two", "jane")
    assert releases.about_to_be_deployed() == ["one"]
    long_ago = time.time() - FRESH_S - 1
    os.utime(releases.folder("one"), (long_ago, long_ago))
    assert releases.about_to_be_deployed() == []


def test_only_the_folders_of_kept_releases_stay(releases: Releases) -> None:
    releases.prune(["two", "three"])
    assert [path.name for path in (releases.directory / "releases").iterdir()] == ["two"]


@pytest.mark.parametrize(("folder", "target"), [("secrets", "/run/secrets"), ("servers", "/etc/fleet")])
def test_what_is_mounted_stays_as_long_as_a_release_that_needs_it(tmp_path: Path, folder: str, target: str) -> None:
    """A rollback could not start without its secrets, and secrets that nobody needs must not stay."""
    for name in ("app-old", "app-kept", "app-live"):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "key").write_text("value")
    nginx = ("/etc/nginx/stack", str(tmp_path / "nginx"))
    apps = [(target, str(tmp_path / folder / name)) for name in ("app-kept", "app-live")]
    # The same name of another kind keeps nothing.
    other = ("/else", str(tmp_path / "else" / "app-old"))
    Releases(tmp_path).prune_mounted([nginx, *apps, other])
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["app-kept", "app-live"]
    Releases(tmp_path).prune_mounted([nginx])
    assert list((tmp_path / folder).iterdir()) == []
