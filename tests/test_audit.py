"""The audit itself: what it accepts, and that it never passes because it saw nothing."""

import io
import sys
import tarfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from audit.__main__ import tool
from audit.floors import Floor, below, is_older
from audit.nginx import KINDS, rendered
from audit.report import Finding, Outcome, Reason, judge, table
from roles.image.library.image_packages import packages_in
from tests.project import ROOT
from tests.test_repository import locked, tracked

FOUND = Finding("DL1", "a/Dockerfile", "bad", 3)
OTHER = Finding("DL2", "a/Dockerfile", "worse")
REASON = Reason("hadolint", "DL1", "*/Dockerfile", "it is so")
GUNICORN = Floor("pypi", "gunicorn", "22.0.0", "CVE-2024-6827", "its news")
STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12+deb13u4
Description: GNU C Library
 Status: not what it seems

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""


def outcome(*findings: Finding, count: int = 1) -> Outcome:
    """Describe the result of a check."""
    return Outcome("1.0", "files", count, findings)


def test_finding_without_a_reason_has_to_be_mended() -> None:
    """A reason excuses it only with the same check, rule and file."""
    assert judge("hadolint", outcome(FOUND, OTHER), [REASON]) == ([OTHER], 1)
    for other in ("checkov", "DL2"), ("hadolint", "DL2"):
        bad, stays = judge("hadolint", outcome(FOUND), [Reason(*other, "*", "x")])
        assert FOUND in bad
        assert stays == 0
    assert FOUND in judge("hadolint", outcome(FOUND), [Reason("hadolint", "DL1", "b/*", "x")])[0]


def test_reason_that_excuses_nothing_has_to_go() -> None:
    """It would excuse the next finding of its kind without a look."""
    bad, _ = judge("hadolint", outcome(), [REASON])
    assert [(one.id, one.where) for one in bad] == [("DL1", "*/Dockerfile")]
    assert judge("gixy", outcome(), [REASON]) == ([], 0)


def test_check_that_saw_nothing_fails() -> None:
    """An audit without data must not pass."""
    bad, _ = judge("hadolint", outcome(count=0), [])
    assert [one.id for one in bad] == ["nothing"]


def test_tool_that_failed_half_way_is_no_success() -> None:
    """The list of materials of one image was printed before the next one failed."""
    words = [sys.executable, "-c", "print('one'); raise SystemExit('the next one failed')"]
    assert tool(Path(words[0]), *words[1:]).strip() == "one"
    with pytest.raises(RuntimeError, match="failed: the next one failed"):
        tool(Path(words[0]), *words[1:], fails_on_findings=False)


def test_every_kind_of_nginx_conf_can_be_rendered() -> None:
    """A variable that the template needs would be missed only when somebody runs the audit."""
    texts = dict(rendered())
    assert texts.keys() == KINDS.keys()
    assert len(set(texts.values())) == len(KINDS)


def test_table_has_a_line_for_each_check() -> None:
    """Its columns are as wide as their widest cell."""
    lines = table([("hadolint", "2.15.1", "5 Dockerfiles", "1", "1", "ok")]).splitlines()
    assert lines[0].split() == ["check", "with", "looked", "at", "found", "stays", "result"]
    assert lines[0].index("result") == lines[1].index("ok")


@pytest.mark.parametrize(
    ("kind", "version", "least", "older"),
    [
        ("deb", "1.26.3-3+deb13u9", "1.26.3-3+deb13u11", True),
        ("deb", "1.26.3-3+deb13u11", "1.26.3-3+deb13u11", False),
        ("deb", "2.9.0-1~deb13u1", "2.9.0-1", True),
        ("deb", "1:1.0", "9.9", False),
        ("pypi", "9.9.9", "22.0.0", True),
        ("pypi", "22.0", "22.0.0", False),
        ("pypi", "22.0.0rc1", "22.0.0", True),
    ],
)
def test_versions_are_compared_as_their_packagers_do(kind: str, version: str, least: str, older: bool) -> None:
    """As text, deb13u9 would be newer than deb13u11."""
    assert is_older(kind, version, least) is older


def packages(**versions: str) -> list[Mapping[str, str]]:
    """Describe Python packages."""
    return [{"kind": "pypi", "name": name, "version": version} for name, version in versions.items()]


def test_old_version_is_found_in_the_image_that_has_it() -> None:
    """The other image is all right, and a package of another kind is another package."""
    contents = {"app:1": packages(Gunicorn="21.2.0"), "api:1": packages(gunicorn="23.0.0")}
    assert [str(one) for one in below([GUNICORN], contents)] == [
        "app:1: CVE-2024-6827: gunicorn 21.2.0 is older than 22.0.0 (its news)"
    ]


def test_floor_of_a_package_that_is_nowhere_is_told() -> None:
    """A package that has another name now, or an empty list, must not look like success."""
    for contents in ({}, {"app:1": packages(flask="3.1.3")}):
        (finding,) = below([GUNICORN], contents)
        assert "gunicorn is in no image" in finding.text


def test_packages_are_read_from_the_file_system() -> None:
    """They are Debian's installed ones and Python's from pip, and none is listed twice."""
    flask = "opt/venv/lib/python3.13/site-packages/flask-3.1.3.dist-info/METADATA"
    files = {
        "var/lib/dpkg/status": STATUS,
        flask: "Name: Flask\nVersion: 3.1.3\n\nVersion: no",
        "usr/lib/python3/dist-packages/yaml-6.dist-info/METADATA": "Name: yaml\nVersion: 6\n",
        "srv/app/METADATA": "Name: none\nVersion: 0\n",
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    stream.seek(0)
    assert list(packages_in(stream)) == [
        {"kind": "deb", "name": "libc6", "version": "2.41-12+deb13u4", "architecture": "amd64"},
        {"kind": "pypi", "name": "Flask", "version": "3.1.3"},
    ]


def test_locked_versions_are_above_the_floors() -> None:
    """The images get the locked versions, so this shows an old one without a build."""
    floors = [Floor(**entry) for entry in yaml.safe_load((ROOT / "audit/floors.yml").read_text())]
    ours = [floor for floor in floors if floor.kind == "pypi"]
    assert ours
    versions = {name: max(found) for name, found in locked(ROOT / "app/requirements.txt").items()}
    assert list(below(ours, {"app/requirements.txt": packages(**versions)})) == []


def test_reasons_are_about_files_that_exist() -> None:
    """Each names a check, gives the reason, and concerns a file of the repository."""
    names = [path.relative_to(ROOT).as_posix() for path in tracked()]
    for reason in [Reason(**entry) for entry in yaml.safe_load((ROOT / "audit/findings.yml").read_text())]:
        assert len(reason.reason.split()) > 5
        assert any(fnmatchcase(name, reason.where) for name in names) or reason.where.startswith("nginx.conf"), reason
