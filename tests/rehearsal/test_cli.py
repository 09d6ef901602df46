"""The five commands of the rehearsal, without an engine."""

import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rehearsal import cli, daemon, docker, firewall
from rehearsal.errors import RehearsalError
from rehearsal.state import Settings, State
from tests.iam import read_policy
from tests.preflight.input import free_port
from tests.project import ROOT

INSTANCE = {"id": "i-1", "type": "t2.micro", "state": "running", "address": "10.99.0.4", "vcpus": 1, "memory": 1024}
INSTANCE |= {"since": "2026-01-01T00:00:00", "reason": ""}


@pytest.fixture
def runs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Let a rehearsal run already, and return its settings."""
    monkeypatch.setattr(daemon, "running", lambda _: (settings, {"image": settings.image, "controller": ""}))
    return settings


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    noted: list[dict[str, Any]] = []

    def up(**wanted: Any) -> str:
        noted.append(wanted)
        return "up"

    monkeypatch.setattr(daemon, "up", up)
    return noted


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("command", ["status", "env"])
def test_commands_that_need_a_rehearsal_say_how_to_start_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`eval` of an empty answer would send the next command to the real AWS."""
    assert cli.main(["--name", "trial", command]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == ("rehearsal: rehearsal 'trial' is not running; start it: python -m rehearsal --name trial up\n")


def test_status_is_a_table(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = INSTANCE | {"id": "i-2", "state": "terminated", "reason": "Server.InternalError: no image"}
    said = {"image": "x:1", "instances": [INSTANCE, broken]}
    monkeypatch.setattr(daemon, "running", lambda _: (settings, said))
    assert cli.main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "http://127.0.0.1:7199" in lines[0]
    assert lines[1].split() == list(cli.COLUMNS)
    assert lines[2].split() == ["i-1", "t2.micro", "running", "10.99.0.4", "1", "1024", "MiB", "2026-01-01T00:00:00"]
    assert lines[-1] == "i-2: Server.InternalError: no image"


def test_second_up_changes_nothing(runs: Settings) -> None:
    said = daemon.up("trial", image=runs.image, port=7199, account="paid", quotas={})
    assert said.startswith("already running: rehearsal 'trial' at http://127")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"port": 7000}, r"port 7199, not 7000"),
        ({"account": "new"}, "account paid, not new"),
        ({"quotas": {"L-1216C47A": 1}}, "quotas as usual, not "),
    ],
)
@pytest.mark.usefixtures("runs")
def test_what_a_running_rehearsal_cannot_change_is_refused(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(RehearsalError, match=rf"runs with {said}.*stop it first"):
        daemon.up("trial", **wanted)


def test_quotas_are_given_by_code(given: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "--account", "new", "--quota", "L-1216C47A=1", "--quota", "L-0263D0A3=0"]) == 0
    assert given == [{"name": "rehearsal", "account": "new", "quotas": {"L-1216C47A": 1, "L-0263D0A3": 0}}]
    for wrong in ("L-1216C47A", "L-1216C47A=many", "L-00000000=1"):
        with pytest.raises(SystemExit):
            cli.main(["up", "--quota", wrong])
        assert f"{wrong!r}: allowed are L-1216C47A, L-0263D0A3" in capsys.readouterr().err


def test_policy_is_read_from_the_page_that_shows_it(
    given: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["up", "--policy", str(ROOT / "docs/iam.md")]) == 0
    assert cli.main(["up", "--policy", ""]) == 0
    assert [one["policy"] for one in given] == [read_policy(), {}]
    (tmp_path / "policy.json").write_text('{"Statement": [{"Effect": "Allow", "NotAction": "iam:*"}]}')
    for wrong, why in ((tmp_path / "policy.json", "NotAction"), (tmp_path / "none", "No such file")):
        with pytest.raises(SystemExit):
            cli.main(["up", "--policy", str(wrong)])
        assert "not a policy that can be enforced: " in (said := capsys.readouterr().err)
        assert why in said


@pytest.mark.usefixtures("runs")
def test_running_rehearsal_takes_a_newer_image_and_another_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def ask(_settings: Settings, *order: Any) -> dict[str, Any]:
        sent.append(order)
        return {"name": "trial"}

    monkeypatch.setattr(daemon, "ask", ask)
    monkeypatch.setattr(docker, "require_image", lambda _: None)
    assert "now boot flask-fleet/instance:new" in daemon.up("trial", image="flask-fleet/instance:new")
    assert daemon.up("trial", controller="203.0.113.7").endswith("; instances now see this machine as 203.0.113.7")
    assert sent == [("PUT", {"image": "flask-fleet/instance:new"}), ("PUT", {"controller": "203.0.113.7"})]


@pytest.mark.parametrize("address", ["10.99.0.9", "203.0.113", "2001:db8::1"])
@pytest.mark.usefixtures("runs")
def test_controller_address_that_could_not_work_is_refused(address: str) -> None:
    with pytest.raises(RehearsalError, match=rf"--controller-address '{address}'.* such as 203\.0\.113\.7"):
        daemon.up("trial", controller=address)


@pytest.mark.parametrize("status", [None, 1], ids=["no client", "no engine"])
def test_down_without_an_engine_removes_nothing_unless_something_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int | None
) -> None:
    """`make test` calls it first, on a fresh machine too, but what a stopped engine keeps must not be forgotten."""
    if status is not None:
        client = tmp_path / "docker"
        client.write_text(f"#!/bin/sh\necho Cannot connect >&2\nexit {status}\n", encoding="utf-8")
        client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nothing to remove" in daemon.down("trial")
    State.of("trial").save(settings)
    with pytest.raises(RehearsalError, match=r"Cannot connect|no docker client"):
        daemon.down("trial")
    assert State.of("trial").path.exists()


@pytest.mark.usefixtures("settings")
def test_up_without_an_image_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "run", lambda *_, **__: "")
    with pytest.raises(RehearsalError, match=r"no local image of flask-fleet/instance; `make rehearse`"):
        daemon.up("trial")


@pytest.mark.usefixtures("settings")
def test_port_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "run", lambda *_, **__: "")
    monkeypatch.setattr(docker, "attempt", lambda *_, **__: docker.Outcome(0, "", ""))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(RehearsalError, match=f"--port {port}: Address already in use"):
            daemon.up("trial", image="x:1", port=port)


def test_another_service_on_the_port_is_not_ours(settings: Settings, state: State) -> None:
    state.save(replace(settings, port=free_port()))
    assert daemon.running("trial") is None


def test_newest_image_is_the_first_with_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "flask-fleet/instance:<none>\nflask-fleet/instance:b\nflask-fleet/instance:a"
    monkeypatch.setattr(docker, "run", lambda *_: listed)
    assert docker.newest_image("flask-fleet/instance") == "flask-fleet/instance:b"


def test_docker_errors_carry_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: subprocess.CompletedProcess[str] = subprocess.CompletedProcess([], 125, "", "no such option\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(docker.DockerError, match=r"docker network failed \(125\): no such option"):
        docker.run("network", "ls")


def test_reaping_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine may finish creating a container whose client was killed."""
    listed = iter([["a"], ["v"], ["i"], ["n"], ["late"], [], [], [], [], [], [], []])
    removed: list[tuple[str, ...]] = []

    def attempt(*arguments: str, **_: float) -> docker.Outcome:
        removed.append(arguments)
        return docker.Outcome(0, "", "")

    monkeypatch.setattr(docker, "_listed", lambda *_: next(listed))
    monkeypatch.setattr(docker, "attempt", attempt)
    monkeypatch.setattr(docker, "REAP_PAUSE", 0)
    assert docker.reap("trial") == 5
    assert [arguments[-1] for arguments in removed] == ["a", "v", "i", "n", "late"]


def resumed(monkeypatch: pytest.MonkeyPatch, settings: Settings, state: State, spawn: Any) -> list[Settings]:
    """Let `up` find what a killed API process left."""
    state.save(settings)
    state.memory.touch()
    spawned: list[Settings] = []
    monkeypatch.setattr(docker, "run", lambda *_, **__: "")
    monkeypatch.setattr(docker, "attempt", lambda *_, **__: docker.Outcome(0, "", ""))
    monkeypatch.setattr(firewall, "filter_bridge", lambda _: None)

    def spawn_and_note(chosen: Settings) -> None:
        spawned.append(chosen)
        spawn(chosen)

    monkeypatch.setattr(daemon, "_spawn", spawn_and_note)
    monkeypatch.setattr(docker, "reap", lambda _: 3)
    return spawned


def test_killed_rehearsal_goes_on_as_it_was(settings: Settings, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned = resumed(monkeypatch, settings, state, lambda _: None)
    assert daemon.up("trial").startswith("resumed rehearsal 'trial' at http://127.0.0.1:7199")
    assert spawned == [settings]


def test_another_network_is_another_rehearsal(
    settings: Settings, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = resumed(monkeypatch, settings, state, lambda _: None)
    assert daemon.up("trial", image="x:1", port=7199, network="10.98.0.0/16").startswith("started rehearsal")
    assert spawned[0].network == "10.98.0.0/16"
    assert not state.memory.exists()


def test_state_that_cannot_be_read_is_thrown_away_and_said(
    settings: Settings, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(_: Settings) -> None:
        if state.memory.exists():
            raise daemon.UnreadableStateError("written by version 5.0")

    resumed(monkeypatch, settings, state, spawn)
    said = daemon.up("trial")
    assert said.startswith("started rehearsal")
    assert said.endswith(
        "; the state of the last run cannot be read (written by version 5.0); "
        "removed 3 containers, volumes and networks of it"
    )
