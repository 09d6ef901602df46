"""The files of a release: read by the programs that they are for before any of them takes its place."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import replace as changed
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet import files
from fleet.bundle import MARGIN_BYTES, bring
from fleet.files import File, place
from fleet.stack import Stack
from fleet.system import FleetError
from tests.fake_docker import Docker

CONFIG = {
    "name": "fleet",
    "services": {
        "nginx": {
            "image": "fleet-nginx:1",
            "volumes": [
                {"source": "/stack/nginx", "target": "/etc/nginx/stack"},
                {"source": "/certificate/served", "target": "/etc/nginx/certificate"},
            ],
        }
    },
}
FILES = [
    File("settings.json", "{}"),
    File("releases/r1/compose.yml", "# compose"),
    File("releases/r1/nginx.conf", "# nginx"),
    File("servers/app-1/app.ini", "[uwsgi]", validate="grep uwsgi %s"),
]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Return an engine that accepts the files."""
    fake = Docker(tmp_path / "bin", monkeypatch)
    fake.answer("config --format", says=json.dumps(CONFIG))
    return fake


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """Return a stack with other settings."""
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/settings.json").write_text("old")
    return Stack(tmp_path / "stack")


def said(stack: Stack) -> dict[str, str]:
    """Read the files of the stack."""
    found = [path for path in stack.directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(stack.directory)): path.read_text() for path in found}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_programs_read_what_is_to_come(stack: Stack, docker: Docker) -> None:
    """The check of nginx cannot reach or change anything, and a second time there is nothing to check."""
    assert bring(stack, "r1", FILES, really=True)["changed"]
    assert said(stack) == {one.path: one.content for one in FILES}
    assert {mode(stack.directory / one.path) for one in FILES} == {0o644}
    folder = f"{stack.directory}/releases/r1"
    (config,), (check,) = docker.asked("config --format"), docker.asked("nginx -t")
    assert config[:5] == [
        "compose",
        "--project-directory",
        str(stack.directory),
        "--file",
        f"{folder}/.compose.yml.new",
    ]
    assert {"--rm", "--read-only", "fleet-nginx:1"} < set(check)
    assert " --pull never --network none " in " ".join(check)
    assert f"{folder}/.nginx.conf.new:/etc/nginx/stack/nginx.conf:ro" in check
    assert "/certificate/served:/etc/nginx/certificate:ro" in check
    assert not any("/stack/nginx:" in word for word in check)
    assert bring(stack, "r1", FILES, really=True) == {"changed": False, "diff": []}
    assert len(docker.asked("nginx -t")) == 1


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "nginx": ("nginx -t", {"status": 1, "complains": "unknown directive"}, "nginx refuses nginx.conf: unknown direct"),
    "Compose": ("config --format", {"status": 15, "complains": "yaml: line 1"}, "yaml: line 1"),
}


@pytest.mark.parametrize("program", REFUSED)
def test_nothing_is_written_where_a_program_refuses(stack: Stack, docker: Docker, program: str) -> None:
    words, answer, message = REFUSED[program]
    docker.answer(words, **answer)
    with pytest.raises(FleetError, match=message):
        bring(stack, "r1", FILES, really=True)
    assert said(stack) == {"settings.json": "old"}


def test_nothing_is_written_where_a_server_refuses(stack: Stack, docker: Docker) -> None:
    wrong = [changed(one, content="[]") if one.validate else one for one in FILES]
    with pytest.raises(FleetError, match=r"app\.ini is not written, because it is refused"):
        bring(stack, "r1", wrong, really=True)
    assert said(stack) == {"settings.json": "old"}
    assert docker.asked() == []


def test_nothing_is_written_to_a_full_disk(stack: Stack, docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=MARGIN_BYTES - 3))
    with pytest.raises(FleetError, match=r"^3 bytes are missing"):
        bring(stack, "r1", FILES, really=True)
    assert said(stack) == {"settings.json": "old"}
    assert docker.asked() == []


def test_check_mode_only_compares(stack: Stack, docker: Docker) -> None:
    found = bring(stack, "r1", FILES[:1], really=False)
    path = f"{stack.directory}/settings.json"
    assert found["changed"]
    assert found["diff"] == [{"before_header": path, "before": "old", "after_header": path, "after": "{}"}]
    assert said(stack) == {"settings.json": "old"}
    assert docker.asked() == []


@pytest.mark.usefixtures("docker")
def test_nginx_can_read_its_folder_whatever_umask_it_was_made_with(stack: Stack) -> None:
    folder = stack.directory / "nginx"
    folder.mkdir(mode=0o700)
    (folder / "nginx.conf").touch(mode=0o600)
    bring(stack, "r1", FILES, really=True)
    assert (mode(folder), mode(folder / "nginx.conf")) == (0o755, 0o644)


def test_nobody_else_can_read_a_closed_file_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def opened(path: Path, flags: int, permissions: int) -> int:
        begun.append(permissions)
        return os.open(path, flags, permissions)

    monkeypatch.setattr(files, "os", SimpleNamespace(**{**vars(os), "open": opened}))
    place([File(str(tmp_path / "users"), "secret", mode="0600")], really=True)
    assert begun == [0o600]
    assert mode(tmp_path / "users") == 0o600
