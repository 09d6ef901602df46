"""The command before a new release takes over: shown, limited, and nothing is left of it."""

import json
from pathlib import Path

import pytest

from roles.stack.library.stack_machine import Machine, StepError, prepare
from tests.fake_docker import Docker
from tests.project import ROOT, load_yaml, tasks

COMMAND = ["flask", "db", "upgrade"]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Give a docker that knows the project."""
    fake = Docker(tmp_path / "bin", monkeypatch)
    fake.answer("compose --project-directory", says=json.dumps({"name": "fleet"}))
    return fake


def test_command_runs_in_the_new_release_without_the_health_check(docker: Docker, tmp_path: Path) -> None:
    """With all that Compose gives a replica: environment, secrets, networks, limits and user."""
    docker.answer("run --rm", says="one\ntwo\n")
    result = prepare(Machine(tmp_path), "r1", "app", COMMAND, 5)
    assert result == {"changed": True, "text": "pre_deploy of app (flask db upgrade):\none\ntwo"}
    (call,) = docker.asked("run --rm")
    assert call[call.index("--file") + 1] == str(tmp_path / "releases/r1/compose.yml")
    assert " ".join(call).endswith("run --rm --no-deps --no-TTY --name fleet-app-pre-deploy app flask db upgrade")


def test_failure_is_told_with_the_last_lines(docker: Docker, tmp_path: Path) -> None:
    """Both of what it printed and of what it complained about."""
    lines = "\n".join(f"line {number}" for number in range(100))
    docker.answer("run --rm", says=f"{lines}\n", complains="no such table\n", status=3)
    with pytest.raises(StepError) as told:
        prepare(Machine(tmp_path), "r1", "app", COMMAND, 5)
    said = str(told.value)
    assert said.startswith("pre_deploy of app (flask db upgrade) ended with status 3. Nothing was replaced")
    assert "no such table" in said
    assert "line 99" in said
    assert "line 9\n" not in said


def test_command_that_does_not_end_is_ended(docker: Docker, tmp_path: Path) -> None:
    """Its container too, which outlives the program that waits for it."""
    docker.answer("run --rm", says="waiting for a lock\n", takes=30)
    with pytest.raises(StepError, match=r"did not end within 1 s(.|\n)*waiting for a lock"):
        prepare(Machine(tmp_path), "r1", "app", COMMAND, 1)
    order = [({"config", "rm", "run"} & set(call)).pop() for call in docker.asked() if "--rm" not in call]
    assert order == ["config", "rm", "rm"]


def test_nothing_is_left_of_a_run_that_was_killed(docker: Docker, tmp_path: Path) -> None:
    """Its container would keep the name."""
    prepare(Machine(tmp_path), "r1", "app", COMMAND, 5)
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
