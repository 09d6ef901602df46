"""The command before a new release takes over: shown, limited, and nothing is left of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from roles.stack.library.stack_machine import RENDERED, Machine, StepError, digest, prepare
from tests.fake_docker import Docker
from tests.project import ROOT, load_yaml, tasks

COMMAND = ["flask", "db", "upgrade"]


def step(service: str, command: list[str], seconds: int) -> dict[str, Any]:
    """Give what the role would."""
    return {"release": "r1", "service": service, "command": command, "seconds": seconds, "count": 5}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Give a docker that knows the project."""
    fake = Docker(tmp_path / "bin", monkeypatch)
    fake.answer("compose --project-directory", says=json.dumps({"name": "fleet"}))
    return fake


def test_command_runs_in_the_new_release_without_the_health_check(docker: Docker, tmp_path: Path) -> None:
    """With all that Compose gives a replica: environment, secrets, networks, limits and user."""
    docker.answer("run --rm", says="one\ntwo\n")
    result = prepare(Machine(tmp_path), step("app", COMMAND, 5))
    assert result == {"changed": True, "text": "pre_deploy of app (flask db upgrade):\none\ntwo"}
    (call,) = docker.asked("run --rm")
    assert call[call.index("--file") + 1] == str(tmp_path / "releases/r1/compose.yml")
    assert " ".join(call).endswith("run --rm --no-deps --no-TTY --name fleet-app-pre-deploy app flask db upgrade")


def test_failure_is_told_with_the_last_lines(docker: Docker, tmp_path: Path) -> None:
    """Both of what it printed and of what it complained about."""
    lines = "\n".join(f"line {number}" for number in range(100))
    docker.answer("run --rm", says=f"{lines}\n", complains="no such table\n", status=3)
    with pytest.raises(StepError) as told:
        prepare(Machine(tmp_path), step("app", COMMAND, 5))
    said = str(told.value)
    assert said.startswith("pre_deploy of app (flask db upgrade) ended with status 3. Nothing was replaced")
    assert "no such table" in said
    assert "line 99" in said
    assert "line 9\n" not in said


def test_command_that_does_not_end_is_ended(docker: Docker, tmp_path: Path) -> None:
    """Its container too, which outlives the program that waits for it."""
    docker.answer("run --rm", says="waiting for a lock\n", takes=30)
    with pytest.raises(StepError, match=r"did not end within 1 s(.|\n)*waiting for a lock"):
        prepare(Machine(tmp_path), step("app", COMMAND, 1))
    order = [({"config", "rm", "run"} & set(call)).pop() for call in docker.asked() if "--rm" not in call]
    assert order == ["config", "rm", "rm"]


@pytest.mark.parametrize("is_kept", [True, False])
def test_release_goes_whose_command_failed(docker: Docker, tmp_path: Path, is_kept: bool) -> None:
    """Not where what serves is of a run that was killed: its secrets would go with it."""
    (tmp_path / "nginx").mkdir()
    for name in RENDERED.values():
        (tmp_path / name).write_text("live")
    live = digest(tmp_path, list(RENDERED.values()))
    for release in (live, "r1"):
        (tmp_path / "releases" / release).mkdir(parents=True)
    if is_kept:
        (tmp_path / "releases" / live / "activated").write_text("jane")
    docker.answer("config --format", says=json.dumps({"name": "fleet", "services": {}}))
    docker.answer("run --rm", status=1)
    with pytest.raises(StepError, match="ended with status 1"):
        prepare(Machine(tmp_path), step("app", COMMAND, 5))
    left = {path.name for path in (tmp_path / "releases").iterdir()}
    assert left == ({live} if is_kept else {live, "r1"})


def test_nothing_is_left_of_a_run_that_was_killed(docker: Docker, tmp_path: Path) -> None:
    """Its container would keep the name."""
    prepare(Machine(tmp_path), step("app", COMMAND, 5))
    assert docker.asked("rm --force") == [["rm", "--force", "fleet-app-pre-deploy"]] * 2


def test_it_comes_before_anything_is_replaced_and_in_no_rollback() -> None:
    """What it changed in a database is not taken back by an older release."""
    change = list(tasks(load_yaml(ROOT / "roles/stack/tasks/change.yml")))
    names = [task["name"] for task in change]
    position = names.index("change | Run what has to be done before")
    assert position < names.index("change | Replace what is old, and go back if that fails")
    assert "__stack_prepares" in change[position]["when"]
    back = [task for task in tasks(load_yaml(ROOT / "roles/stack/tasks/rollback.yml")) if "vars" in task]
    assert [task["vars"] for task in back if "__stack_prepares" in task["vars"]] == [{"__stack_prepares": False}]
