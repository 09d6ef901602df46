"""Static files on their way from the image to nginx, which must never see half a file or a file of somebody else."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from fleet.engine.compose import Compose
from fleet.release import Releases
from fleet.static_files import COMPRESSIBLE, LEAST_COMPRESSED, bring, prune
from fleet.system import FleetError
from tests.project import ROOT

LONG = b"a { color: red }\n" * 100
OLD, NEW = 1_700_000_000, 1_700_000_100


def archive(*members: tuple[str, bytes | None, dict[str, Any]]) -> io.BytesIO:
    """Make an archive as `docker cp` does; a member without content is a folder, and the rest are its attributes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content, more in members:
            member = tarfile.TarInfo(name)
            member.type, member.mtime = (tarfile.DIRTYPE if content is None else tarfile.REGTYPE), OLD
            member.size = len(content or b"")
            for key, value in more.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content or b""))
    stream.seek(0)
    return stream


def files(**contents: bytes) -> list[tuple[str, bytes | None, dict[str, Any]]]:
    """Describe files; a single underscore in a name stands for the point before its extension."""
    return [("static", None, {}), *((f"static/{name.replace('_', '.')}", text, {}) for name, text in contents.items())]


class Lender(Compose):
    def __init__(self, archive: IO[bytes]) -> None:
        super().__init__(Releases(Path("/nowhere")))
        self._archive = archive

    @contextmanager
    def folder_of(self, image: str, folder: str) -> Iterator[IO[bytes]]:
        assert (image[:4], folder) == ("app:", "static")
        yield self._archive


def brought(root: Path, image: str, *members: tuple[str, bytes | None, dict[str, Any]]) -> set[str]:
    """Copy the files of an image; return the names of those whose content or time changed, without compressed ones."""
    before = states(root)
    bring(Lender(archive(*members)), root, "app", image, "static")
    return {name for name, state in states(root).items() if before.get(name) != state and not name.endswith(".gz")}


def states(root: Path) -> dict[str, tuple[bytes, float]]:
    return {name: (content, (root / "app" / name).stat().st_mtime) for name, content in served(root).items()}


def served(root: Path) -> dict[str, bytes]:
    return {str(one.relative_to(root / "app")): one.read_bytes() for one in (root / "app").rglob("*") if one.is_file()}


def test_files_arrive_with_their_times(tmp_path: Path) -> None:
    """The ETag is made of time and size, so it is the same on every machine that has this image."""
    css: tuple[str, bytes, dict[str, Any]] = ("static/css/site.css", b"a {}", {})
    assert brought(tmp_path, "app:1", ("static", None, {}), ("static/css", None, {}), css) == {"css/site.css"}
    assert served(tmp_path) == {"css/site.css": b"a {}"}
    assert (tmp_path / "app/css/site.css").stat().st_mtime == OLD
    assert (tmp_path / "app/css/site.css").stat().st_mode & 0o777 == 0o644
    assert not (tmp_path / "app.new").exists()


def test_old_and_new_files_are_there_together(tmp_path: Path) -> None:
    brought(tmp_path, "app:1", *files(a_11111111_js=b"1", plain_js=b"1"))
    assert brought(tmp_path, "app:2", *files(a_22222222_js=b"2", plain_js=b"2")) == {"a.22222222.js", "plain.js"}
    assert served(tmp_path) == {"a.11111111.js": b"1", "a.22222222.js": b"2", "plain.js": b"2"}
    # Going back: the file whose name stays has to be the old one again.
    assert brought(tmp_path, "app:1", *files(a_11111111_js=b"1", plain_js=b"1")) == {"plain.js"}
    assert served(tmp_path)["plain.js"] == b"1"


def test_only_another_content_is_another_etag(tmp_path: Path) -> None:
    """A new checkout has new times, but nobody should have to load the file again for that."""
    brought(tmp_path, "app:1", *files(plain_js=b"1"))
    changed = brought(tmp_path, "app:2", ("static", None, {}), ("static/plain.js", b"1", {"mtime": NEW}))
    assert changed == set()
    assert (tmp_path / "app/plain.js").stat().st_mtime == OLD
    # Browsers must notice a change that keeps the size, in an image whose files all have the same time.
    brought(tmp_path, "app:3", *files(plain_js=b"2"))
    assert (tmp_path / "app/plain.js").stat().st_mtime > OLD


def test_what_gets_smaller_is_there_compressed(tmp_path: Path) -> None:
    """The compressed file for gzip_static has the same time, and is never that of another release."""
    brought(tmp_path, "app:1", *files(site_css=LONG, photo_jpg=LONG, short_css=b"a {}"))
    assert set(served(tmp_path)) == {"site.css", "site.css.gz", "photo.jpg", "short.css"}
    assert gzip.decompress(served(tmp_path)["site.css.gz"]) == LONG
    assert (tmp_path / "app/site.css.gz").stat().st_mtime == OLD
    brought(tmp_path, "app:2", *files(site_css=LONG + b"b {}"))
    assert gzip.decompress(served(tmp_path)["site.css.gz"]) == LONG + b"b {}"
    brought(tmp_path, "app:3", *files(site_css=b"a {}"))
    assert "site.css.gz" not in served(tmp_path)


def test_compressed_file_is_the_images_own_and_comes_back_when_it_is_lost(tmp_path: Path) -> None:
    brought(tmp_path, "app:1", *files(site_css=LONG))
    (tmp_path / "app/site.css.gz").unlink()
    brought(tmp_path, "app:1", *files(site_css=LONG))
    assert "site.css.gz" in served(tmp_path)
    own = gzip.compress(LONG)
    brought(tmp_path, "app:2", *files(site_css=LONG, site_css_gz=own))
    assert served(tmp_path) == {"site.css": LONG, "site.css.gz": own}


def test_nginx_compresses_what_is_compressed_here() -> None:
    """The least size is the same for both, so that it does not matter which of them compresses a file."""
    conf = (ROOT / "roles/stack/templates/nginx/nginx.conf.j2").read_text(encoding="utf-8")
    assert f"gzip_min_length {LEAST_COMPRESSED};" in conf
    assert {".css", ".js", ".svg"} < COMPRESSIBLE


@pytest.mark.parametrize(
    "member",
    [
        ("static/a", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("static/a", b"", {"type": tarfile.SYMTYPE, "linkname": "b"}),
        ("static/a", b"", {"type": tarfile.FIFOTYPE}),
        ("static/a", b"", {"type": tarfile.CHRTYPE}),
        ("static/a", b"", {"type": tarfile.LNKTYPE, "linkname": "static/../../../etc/passwd"}),
        ("static/../../a", b"x", {}),
        ("/static/a", b"x", {}),
        ("static", b"", {"type": tarfile.SYMTYPE, "linkname": "/"}),
        ("static", b"x", {}),
    ],
)
def test_nothing_leads_out_of_the_folder(tmp_path: Path, member: tuple[str, bytes, dict[str, Any]]) -> None:
    """A link in the app's image would make nginx serve a file of the machine to everybody."""
    with pytest.raises(FleetError):
        brought(tmp_path / "root", "app:1", member)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()] == []


def test_two_names_of_one_file_are_two_files(tmp_path: Path) -> None:
    link = ("static/b.js", b"", {"type": tarfile.LNKTYPE, "linkname": "static/a.js"})
    brought(tmp_path, "app:1", *files(a_js=b"1"), link)
    assert served(tmp_path) == {"a.js": b"1", "b.js": b"1"}


def test_a_file_may_become_a_folder_and_a_folder_a_file(tmp_path: Path) -> None:
    brought(tmp_path, "app:1", ("static/a", b"1", {}), ("static/b/c", b"1", {}))
    brought(tmp_path, "app:2", ("static/a/c", b"2", {}), ("static/b", b"2", {}))
    assert served(tmp_path) == {"a/c": b"2", "b": b"2"}


def test_only_what_no_kept_image_has_is_forgotten(tmp_path: Path) -> None:
    for number in (b"1", b"2", b"3"):
        name = f"a_{number.decode() * 8}_css"
        brought(tmp_path, f"app:{number.decode()}", *files(**{name: LONG + number, "plain_js": number}))
    prune(tmp_path, {"app": ["app:2", "app:3"], "other": ["other:1"]})
    kept = ("a.22222222.css", "a.33333333.css")
    assert set(served(tmp_path)) == {*kept, *(f"{name}.gz" for name in kept), "plain.js"}


def test_folders_that_are_empty_go_too(tmp_path: Path) -> None:
    brought(tmp_path, "app:1", ("static/x/y/a.js", b"1", {}))
    brought(tmp_path, "app:2", ("static/b.js", b"2", {}))
    (tmp_path / "app/stray").write_text("of a run that was killed")
    prune(tmp_path, {"app": ["app:2"]})
    assert [path.name for path in (tmp_path / "app").rglob("*")] == ["b.js"]


def test_a_service_that_is_gone_leaves_nothing(tmp_path: Path) -> None:
    brought(tmp_path, "app:1", *files(a_js=b"1"))
    prune(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    prune(tmp_path / "nowhere", {})


DOCKER = """#!/bin/bash
echo "$*" >>"$HERE/calls"
case $1 in
    ps) echo left-behind ;;
    create) echo made ;;
    inspect) echo /srv/app ;;
    cp) [ -e "$HERE/archive" ] && exec cat "$HERE/archive"; echo "no such folder" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker client on the PATH that answers as an engine would, and writes its calls to the file `calls`."""
    here = tmp_path / "docker"
    here.mkdir()
    (here / "docker").write_text(DOCKER)
    (here / "docker").chmod(0o755)
    monkeypatch.setenv("HERE", str(here))
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    return here


def calls(docker: Path) -> list[str]:
    return (docker / "calls").read_text().splitlines()


def test_files_are_copied_from_a_container_that_never_runs(tmp_path: Path, docker: Path) -> None:
    (docker / "archive").write_bytes(archive(*files(site_css=LONG)).getvalue())
    bring(Compose(Releases(tmp_path)), tmp_path / "static", "app", "mine/app:1", "hello/static")
    assert set(served(tmp_path / "static")) == {"site.css", "site.css.gz"}
    mark = f"flask-fleet.static-copy={tmp_path}"
    assert calls(docker) == [
        f"ps --all --quiet --filter label={mark}",
        "rm --force left-behind",
        f"create --pull never --network none --label {mark} mine/app:1 true",
        "inspect --format {{.Config.WorkingDir}} made",
        "cp made:/srv/app/hello/static -",
        "rm --force made",
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no such folder"),
        (archive(("static", None, {})).getvalue(), "there is no file in it"),
        (archive(*files(a_js=LONG)).getvalue()[:1500], ""),
        (archive(("static/a", b"", {"type": tarfile.SYMTYPE, "linkname": "b"})).getvalue(), "a is neither a file nor"),
    ],
    ids=["none", "empty", "half", "link"],
)
def test_what_cannot_be_copied_is_told_and_leaves_no_container(
    tmp_path: Path, docker: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        (docker / "archive").write_bytes(content)
    with pytest.raises(FleetError, match=rf"static files of app \(hello/static in mine/app:1\): .*{why}"):
        bring(Compose(Releases(tmp_path)), tmp_path / "static", "app", "mine/app:1", "hello/static")
    assert calls(docker)[-1] == "rm --force made"
    assert not (tmp_path / "static/app.json").exists()


def test_full_disk_is_told_and_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought(tmp_path, "app:1", *files(site_css=LONG))

    def copy_until_full(content: IO[bytes], file: IO[bytes]) -> None:
        file.write(content.read(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", copy_until_full)
    with pytest.raises(FleetError, match=r"static files of app \(static in app:2\): .*No space left on device"):
        brought(tmp_path, "app:2", *files(site_css=LONG + b"b {}"))
    assert served(tmp_path)["site.css"] == LONG
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app", "app.json"]
