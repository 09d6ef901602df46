"""The command flask-fleet, as a person and as the playbooks call it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.cli import chosen_replicas, main
from fleet.engine.base import Replica
from fleet.job import Jobs
from plugins.action.flask_fleet import program
from tests.fake_docker import Docker, container

CONFIG = {
    "name": "fleet",
    "networks": {"default": {"name": "front"}},
    "services": {
        "nginx": {"image": "fleet-nginx:1", "networks": {"default": None}},
        "app": {"image": "fleet-app:1", "deploy": {"replicas": 2}, "networks": {"default": None}},
    },
}
PATIENCE_S = 60
VERBS = {
    *("status", "deploy", "rollback", "scale", "follow", "cancel", "logs", "exec", "maintenance", "prune", "down"),
    *("databases", "backup", "restore", "certificate", "facts", "bring", "files", "secrets"),
}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Return an engine that runs the whole release."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    fake = Docker(tmp_path / "bin", monkeypatch)
    fake.answer("config --format", says=json.dumps(CONFIG))
    fake.answer("config --hash", says="nginx aaaa\napp bbbb\n")
    fake.answer("ps --all", says="n1 a1 a2")
    running = [container("n1", "nginx", "aaaa"), container("a1", "app", "bbbb"), container("a2", "app", "bbbb")]
    fake.answer("inspect --type container n1", says=json.dumps(running))
    fake.answer("balancer-status", says='{"config_sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}')
    fake.answer("inspect --type container fleet-nginx-standby", says="[]", status=1)
    return fake


@pytest.fixture
def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that calls the program as a playbook does."""

    def once(verb: str, *words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([verb, "--json", "--directory", str(folder), *words]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        answer: dict[str, Any] = json.loads(line)
        assert {"changed", "failed"} <= answer.keys()
        return answer

    return once


def test_help_names_what_a_person_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    listed = re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)
    assert set(listed) == VERBS
    for verb in VERBS:
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        assert "--directory" in capsys.readouterr().out


def test_release_that_runs_already_is_not_deployed(ask: Any, docker: Docker, folder: Path) -> None:
    """No job begins for it, unless the job before was killed, which may have left something to remove."""
    assert ask("deploy") == {"changed": False, "failed": False, "msg": "Release da39a3ee5e6b runs already, all of it."}
    assert ask("deploy", "--check", "da39a3ee5e6b")["changed"] is False
    assert not (folder / "job.jsonl").exists()
    (folder / "job.lock").touch()
    head = {"id": "1", "what": "deploy x", "who": "joe", "began": 0.0, "pid": 1}
    (folder / "job.jsonl").write_text(json.dumps(head) + "\n")
    assert ask("deploy", "--check")["changed"] is True
    (folder / "job.jsonl").write_text(json.dumps(head) + '\n{"result": {"failed": true}}\n')
    assert ask("deploy", "--check")["changed"] is False
    assert not docker.asked(" up ")


@pytest.mark.parametrize("release", ["", "0123456789ab"])
def test_release_that_is_not_there_is_refused_before_a_job_begins(ask: Any, folder: Path, release: str) -> None:
    if not release:
        (folder / "compose.yml").unlink()
    answer = ask("deploy", *filter(None, [release]))
    assert answer["failed"]
    assert answer["msg"] == f"release is {release or 'not given'}: there is no such release here"
    assert not (folder / "job.lock").exists()


def test_rollback_lists_what_can_be_gone_back_to(ask: Any) -> None:
    """A misspelt id must not end in an empty machine."""
    for words, told in (["x"], "release is x"), ([], "release is not given"):
        answer = ask("rollback", *words)
        assert answer["failed"]
        assert answer["msg"].startswith(f"{told}: no such release can be gone back to. Allowed are:\nda39a3ee5e6b  20")
        assert answer["msg"].endswith(" UTC  by jane (live)")


@pytest.mark.parametrize(
    ("number", "changed", "said"),
    [
        ("app=2", False, None),
        ("app=3", True, None),
        ("app=0", False, "app is 0: allowed is a whole number from 1"),
        ("web=2", False, "web is no service: allowed are app"),
        ("nginx=2", False, "nginx is no service: allowed are app"),
        ("app=two", False, "app=two: allowed is SERVICE=COUNT, such as app=5"),
        ("app", False, "app: allowed is SERVICE=COUNT, such as app=5"),
    ],
)
@pytest.mark.usefixtures("docker")
def test_scaling_says_beforehand_what_it_would_do(ask: Any, number: str, changed: bool, said: str | None) -> None:
    answer = ask("scale", "--check", number)
    assert (answer["changed"], answer["failed"], answer.get("msg")) == (changed, bool(said), said)


def test_job_is_done_by_another_process_and_shown(folder: Path, tmp_path: Path, docker: Docker) -> None:
    packed = tmp_path / "flask-fleet"
    packed.write_bytes(program()[1])
    docker.answer(" up ", until=str(tmp_path / "go"))

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(packed), *words, "--directory", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=tmp_path)

    begun = typed("scale", "app=3", "--who", "jane: busy hour", "--json", "--detach")
    job = json.loads(begun.stdout)["started"]
    busy = typed("scale", "app=4", "--json")
    assert json.loads(busy.stdout)["busy"], busy
    assert typed("scale", "app=4").returncode == 1
    (tmp_path / "go").touch()
    followed = typed("follow")
    assert (followed.stdout, followed.returncode) == ("app=3 until the next deploy.\n", 0)
    assert (folder / "audit.log").read_text().endswith(" scale app=3 by jane: busy hour\n")
    assert len(docker.asked("--scale app=3")) == 1
    docker.answer(" up ", status=1, complains="no space")
    failed = typed("scale", "app=4")
    assert failed.returncode == 1
    assert "no space" in failed.stderr
    told = json.loads(typed("follow", "--json", "--job", job).stdout)
    assert told.pop("job").startswith("scale app=3 by jane: busy hour, begun at ")
    end = {"changed": True, "failed": False, "msg": "app=3 until the next deploy."}
    assert told == end | {"lines": [], "ended": True, "id": job}


def test_lines_of_a_job_are_shown_with_how_it_ended(folder: Path, ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["follow", "--directory", str(folder)]) == 0
    assert capsys.readouterr().out == "Nothing was done here yet.\n"

    def task(job: Any) -> dict[str, Any]:
        for line in ("one", "two"):
            job.say(line)
        return {"failed": True, "msg": "no room"}

    Jobs(folder).work("", "1", "deploy x", "jane", task)
    assert main(["follow", "--directory", str(folder)]) == 1
    assert capsys.readouterr() == ("one\ntwo\n", "no room\n")
    news = ask("follow", "--since", "1")
    assert (news["lines"], news["ended"], news["failed"], news["msg"]) == (["two"], True, True, "no room")
    notes = folder / "job.jsonl"
    notes.write_text("".join(notes.read_text().splitlines(keepends=True)[:-1]))
    assert ask("follow")["msg"].startswith("It was killed before its end: deploy x by jane, begun at 20")
    assert main(["cancel", "--directory", str(folder)]) == 1
    assert capsys.readouterr().err == "Nothing is under way here.\n"


@pytest.mark.parametrize(
    ("service", "replica", "names"),
    [
        ("", "", ["app-1", "app-2", "api-1", "nginx-1"]),
        ("app", "", ["app-1", "app-2"]),
        ("nginx", "", ["nginx-1"]),
        ("", "0a1b2c3d4e5f", ["app-1"]),
        ("", "0a1b", ["app-1"]),
        ("", "flask-fleet-api-1", ["api-1"]),
        ("app", "0a99", ["app-2"]),
        # Two of them, somebody else's, nobody's, a part of a name.
        ("", "0a", []),
        ("api", "0a1b", []),
        ("web", "", []),
        ("", "ffff", []),
        ("", "app-1", []),
    ],
)
def test_the_containers_are_those_that_were_asked_for(service: str, replica: str, names: list[str]) -> None:
    there = [
        Replica("0a1b2c3d4e5f", "flask-fleet-app-1", "app"),
        Replica("0a9988776655", "flask-fleet-app-2", "app"),
        Replica("5544332211aa", "flask-fleet-api-1", "api"),
        Replica("ffeeddccbbaa", "flask-fleet-nginx-1", "nginx"),
    ]
    assert [one.name.removeprefix("flask-fleet-") for one in chosen_replicas(there, service, replica)] == names


def test_logs_are_of_what_was_asked_for_or_of_nobody(ask: Any, docker: Docker) -> None:
    docker.answer("logs --timestamps", says="hello\n")
    assert ask("logs", "--replica", "a1", "--lines", "5", "")["text"] == "fleet-a1  | hello"
    assert [call[-1] for call in docker.asked("logs --timestamps")] == ["a1"]
    for words in (["web"], ["--lines", "0"], ["--replica", "a"]):
        answer = ask("logs", *words)
        assert answer["failed"]
        assert answer["msg"].endswith("replicas:\napp  a1  fleet-a1\napp  a2  fleet-a2\nnginx  n1  fleet-n1")


def test_command_in_a_replica_keeps_its_words_and_its_status(
    ask: Any, docker: Docker, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.answer("exec a1", says="Python 3.13\n", status=3)
    answer = ask("exec", "app", "python", "--json", "-c", "a b")
    assert answer == {"changed": True, "failed": False, "text": "Python 3.13", "status": 3}
    assert docker.asked("exec a1")[0] == ["exec", "a1", "python", "--json", "-c", "a b"]
    assert main(["exec", "--directory", str(folder), "app", "--", "-x"]) == 3
    assert capsys.readouterr().out == "Python 3.13\n"
    assert docker.asked("exec a1")[1] == ["exec", "a1", "-x"]
    for words in (["web", "true"], ["app"]):
        assert "allowed is one of the services nginx, app, and a command" in ask("exec", *words)["msg"]


def test_maintenance_is_a_page_that_nginx_can_read(ask: Any, folder: Path) -> None:
    """This holds with a strict umask of the operator, too; a page that was changed is shown again."""
    page, shown = folder / "maintenance.html", folder / "nginx/maintenance.html"
    assert ask("maintenance", "--check", "on")["changed"]
    assert ask("maintenance", "on")["msg"] == f"{page}: No such file or directory"
    page.write_text("Back soon")
    before = os.umask(0o077)
    try:
        assert ask("maintenance", "on")["changed"]
        assert shown.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)
    assert not ask("maintenance", "on")["changed"]
    page.write_text("Back at noon")
    for verb, changed in ((["--check", "on"], True), (["on"], True), (["--check", "on"], False)):
        assert ask("maintenance", *verb)["changed"] == changed
        assert shown.read_text() == ("Back soon" if verb[0] == "--check" and changed else "Back at noon")
    assert ask("maintenance", "--check", "off")["changed"]
    assert ask("maintenance", "off")["changed"]
    assert not shown.exists()
    assert not ask("maintenance", "off")["changed"]


def test_down_removes_the_files_too(ask: Any, docker: Docker, folder: Path) -> None:
    docker.answer("ps --all --quiet --filter label=flask-fleet.static-copy", says="left-behind")
    Jobs(folder).work("", "1", "deploy x", "jane", lambda _: {"msg": ask("down")})
    refused = Jobs(folder).progress().result["msg"]
    assert refused["busy"]
    assert refused["msg"].startswith("Another job is under way here: deploy x by jane, begun at 20")
    assert ask("down", "--check")["changed"]
    assert folder.exists()
    assert ask("down")["changed"]
    assert len(docker.asked("down --remove-orphans")) == 1
    assert docker.asked("rm --force left-behind")
    assert not folder.exists()
    assert not ask("down")["changed"]
    # Of a deploy that ended before anything was live.
    (folder / "releases").mkdir(parents=True)
    assert ask("down")["changed"]
    assert not folder.exists()
    assert len(docker.asked("down --remove-orphans")) == 1
