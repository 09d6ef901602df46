"""A playbook uses the machine's program: it brings it once, asks it, and follows its jobs to their end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet.job import Jobs
from plugins.action import flask_fleet
from plugins.action.flask_fleet import program
from tests.project import ROOT

PATIENCE_S = 600
DEBIAN = Path("/usr/bin/python3")
DOCKER = """#!/bin/sh
echo "$*" >> "$HERE/asked"
case " $* " in
    *" config --format "*) cat "$HERE/config" ;;
    *" ps --all "*) echo a1 ;;
    *" inspect "*) cat "$HERE/running" ;;
    *" exec "*) echo Python; exit 3 ;;
    *" up "*" app=9"*) echo no space >&2; exit 1 ;;
    *" up "*) until [ -e "$HERE/go" ]; do sleep 0.1; done ;;
esac
"""
JOB = """
import sys, time
from pathlib import Path
from fleet.job import Jobs

def task(job):
    job.say("one")
    while not Path(sys.argv[2], "go").exists():
        time.sleep(0.05)
    job.say("two")
    return {}

Jobs(Path(sys.argv[1])).work("", "1", "deploy x", "jane: hotfix", task)
"""


@dataclass(frozen=True)
class Played:
    """What a playbook said, and the result of each task."""

    text: str
    results: list[dict[str, Any]]


class Machine:
    """A second machine inside this one: a home, an engine, and a stack's folder."""

    def __init__(self, folder: Path) -> None:
        """Make the machine, whose jobs wait until the file ``go`` is in its folder."""
        self.folder = folder
        self.stack = folder / "stack"
        self.home = folder / "home"
        for one in (self.stack, self.home, folder / "bin"):
            one.mkdir()
        config = {"name": "fleet", "networks": {}, "services": {"app": {"image": "app:1"}, "nginx": {"image": "n:1"}}}
        labels = {"com.docker.compose.service": "app", "com.docker.compose.config-hash": "a"}
        replica = {
            "Id": "a1",
            "Name": "/fleet-app-1",
            "RestartCount": 0,
            "NetworkSettings": {"Networks": {}},
            "Config": {"Env": [], "Labels": labels},
            "State": {"Running": True, "Restarting": False, "ExitCode": 0, "OOMKilled": False, "StartedAt": ""},
        }
        (folder / "config").write_text(json.dumps(config))
        (folder / "running").write_text(json.dumps([replica]))
        (self.stack / "compose.yml").write_text("# of the test")
        # Not root's, whose program goes where everybody finds it.
        for name, script in (("docker", DOCKER), ("id", "#!/bin/sh\necho 1000\n")):
            (folder / "bin" / name).write_text(script)
            (folder / "bin" / name).chmod(0o755)
        (folder / "go").touch()

    def playbook(self, tasks: Sequence[dict[str, Any]]) -> list[str]:
        """Write a playbook with these tasks, all of which are tried, and return the command that runs it."""
        directory = {"directory": str(self.stack)}
        named: list[dict[str, Any]] = [
            {
                "name": one["verb"],
                "flask_fleet": directory | one,
                "register": f"said{number}",
                "ignore_errors": True,
                "no_log": one["verb"] == "secrets",
            }
            for number, one in enumerate(tasks)
        ]
        results = ", ".join(one["register"] for one in named if not one["no_log"])
        named.append({"name": "Show", "ansible.builtin.debug": {"msg": f"results {{{{ [{results}] | to_json }}}}"}})
        path = f"{self.folder}/bin:/usr/bin:/bin"
        play = {
            "name": "Play",
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "environment": {"HOME": str(self.home), "HERE": str(self.folder), "PATH": path},
            "tasks": named,
        }
        (self.folder / "playbook.yml").write_text(json.dumps([play]))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), str(self.folder / "playbook.yml")]
        return [*command, "-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}"]

    def play(self, *tasks: dict[str, Any], check: bool = False) -> Played:
        """Run a playbook with these tasks."""
        command = [*self.playbook(tasks), *(["--check"] if check else [])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        text = done.stdout + done.stderr
        found = re.search(r"results (.*)", text)
        assert (done.returncode, bool(found)) == (0, True), text
        return Played(text, json.loads(found[1]) if found else [])

    @property
    def programs(self) -> list[Path]:
        """The programs that were brought to the machine."""
        return list(self.home.glob(".local/lib/flask-fleet/*/*"))

    def ups(self) -> list[str]:
        """List the numbers with which replicas were started."""
        asked = (self.folder / "asked").read_text().splitlines() if (self.folder / "asked").exists() else []
        return [line.rpartition("--scale ")[2] for line in asked if " up " in line]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, Played]:
    """Ask a machine that has another program everything in one run."""
    machine = Machine(tmp_path_factory.mktemp("asked"))
    old = machine.home / ".local/lib/flask-fleet/0123456789ab/flask-fleet"
    old.parent.mkdir(parents=True)
    old.touch()
    given = {"owner": os.getuid(), "secrets": {"key": "not to be seen"}}
    return machine, machine.play(
        scale(1),
        scale(2),
        {"verb": "exec", "words": ["app", "python", "-V"]},
        scale(9),
        {"verb": "rollback"},
        {"verb": "exec", "words": ["web", "true"]},
        {"verb": "logs", "words": ["--lines", "many"]},
        {"verb": "secrets", "stdin": [given | {"path": str(machine.folder / "secrets/app-1")}]},
        {"verb": "secrets", "stdin": [given | {"path": str(machine.folder / "config/app-1")}]},
    )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Make a machine."""
    return Machine(tmp_path)


def scale(number: int) -> dict[str, Any]:
    """Describe the task that starts replicas."""
    return {"verb": "scale", "words": [f"app={number}", "--who", "joe"]}


@pytest.fixture
def fresh() -> Any:
    """Have the program packed again, before and after the test."""
    program.cache_clear()
    yield
    program.cache_clear()


@pytest.mark.parametrize("python", [Path(sys.executable), DEBIAN], ids=["ours", "Debian's"])
def test_program_needs_nothing_but_python(tmp_path: Path, python: Path) -> None:
    """It needs neither packages nor the folder from which it is run."""
    if not python.exists():
        pytest.skip(f"there is no {python} here")
    name, content = program()
    file = tmp_path / name
    file.write_bytes(content)
    (tmp_path / "empty").mkdir()
    said = [
        subprocess.run(
            [python, "-I", "-S", file, *words],
            cwd=tmp_path / "empty",
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
            env={},
        ).stdout
        for words in (["--help"], ["follow", "--json", "--directory", "nowhere"])
    ]
    assert "rollback" in said[0]
    assert json.loads(said[1])["msg"] == "Nothing was done here yet."
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.usefixtures("fresh")
def test_name_of_the_program_follows_from_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two controllers with the same files bring the same program, whatever their times; one changed line changes it."""
    package = tmp_path / "elsewhere/fleet"
    for file in flask_fleet.PACKAGE.rglob("*.py"):
        copy = package / file.relative_to(flask_fleet.PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (package / "__pycache__").mkdir()
    (package / "__pycache__/cli.pyc").write_bytes(b"of this machine")
    ours = program()
    monkeypatch.setattr(flask_fleet, "PACKAGE", package)
    program.cache_clear()
    assert program() == ours
    (package / "system.py").write_bytes((package / "system.py").read_bytes() + b"\n")
    program.cache_clear()
    assert program()[0] != ours[0]


def test_program_is_brought_once(asked: tuple[Machine, Played]) -> None:
    """It goes to where the operator finds it, and one of another content is removed."""
    machine, _ = asked
    (brought,) = machine.programs
    assert brought.parent.name == program()[0]
    assert brought.read_bytes() == program()[1]
    assert (machine.home / ".local/bin/flask-fleet").resolve() == brought.resolve()
    made = brought.stat()
    assert made.st_mode & 0o777 == 0o755
    machine.play({"verb": "follow"})
    assert brought.stat().st_ino == made.st_ino
    shown = subprocess.run([machine.home / ".local/bin/flask-fleet", "--help"], capture_output=True, check=False)
    assert shown.returncode == 0


def test_check_mode_changes_nothing_and_says_what_would(machine: Machine) -> None:
    """The program's own comparison tells where it has one, and other verbs are skipped."""
    ran, unknown = {"verb": "exec", "words": ["app", "true"]}, {"verb": "logs", "words": ["web"]}
    same, skipped, more, refused = machine.play(scale(1), ran, scale(2), unknown, check=True).results
    assert (same["changed"], skipped["skipped"], more["changed"]) == (False, True, True)
    assert (refused["failed"], "service is 'web'" in refused["msg"]) == (True, True)
    assert machine.ups() == []
    assert [path.name for path in machine.stack.iterdir()] == ["compose.yml"]


def test_job_is_shown_to_its_end(asked: tuple[Machine, Played]) -> None:
    """The job itself tells whether it changed anything."""
    machine, played = asked
    assert [one["changed"] for one in played.results[:2]] == [False, True]
    assert "app=2 until the next deploy." in played.text
    assert machine.ups() == ["app=2", "app=9"]
    assert "scale app=2 by joe" in (machine.stack / "audit.log").read_text()


def test_status_of_a_command_comes_back(asked: tuple[Machine, Played]) -> None:
    """The playbook fails because of it, and the action does not."""
    machine, played = asked
    said = played.results[2]
    assert (said["failed"], said["status"], said["text"]) == (False, 3, "Python")
    lines = (machine.folder / "asked").read_text().splitlines()
    assert "exec a1 python -V" in lines


def test_failure_has_its_reason(asked: tuple[Machine, Played]) -> None:
    """The reason is that of a job, of a verb, or of invalid arguments."""
    told = ["no space", "no such release can be gone back to", "service is 'web'", "invalid int value: 'many'"]
    failed = asked[1].results[3:]
    assert [one["failed"] for one in failed] == [True] * len(told)
    assert [one["msg"] for one, reason in zip(failed, told, strict=True) if reason not in one["msg"]] == []


def test_secrets_are_not_shown_and_the_reason_of_a_failure_is(asked: tuple[Machine, Played]) -> None:
    """Ansible hides all that a task with secrets says; without the reason nobody could mend it."""
    machine, played = asked
    assert (machine.folder / "secrets/app-1/key").read_text() == "not to be seen"
    assert "ignored=5" in played.text
    assert "config: File exists" in played.text
    assert "not to be seen" not in played.text


def begun(machine: Machine) -> subprocess.Popen[bytes]:
    """Keep another person's job under way, and wait for its first line."""
    (machine.folder / "go").unlink()
    process = subprocess.Popen([sys.executable, "-c", JOB, machine.stack, machine.folder], cwd=ROOT)
    while not Jobs(machine.stack).follow(0, 1).lines:
        assert process.poll() is None
    return process


@pytest.mark.parametrize("task", [{"verb": "follow"}, scale(2)], ids=["follow", "scale"])
def test_job_of_somebody_else_is_followed_first(machine: Machine, task: dict[str, Any]) -> None:
    """A run that wants to change something does so when that job has ended."""
    with (
        begun(machine) as other,
        subprocess.Popen(machine.playbook([task]), cwd=ROOT, stdout=subprocess.PIPE, text=True) as play,
    ):
        assert play.stdout
        said = []
        for line in play.stdout:
            said.append(line.strip())
            if line.strip() == "localhost: one":
                (machine.folder / "go").touch()
    assert (other.returncode, play.returncode) == (0, 0), said
    follows = [line for line in said if line.startswith("localhost: ")]
    assert follows[0].startswith("localhost: follows what is under way here: deploy x by jane: hotfix, begun at 20")
    assert follows[1:3] == ["localhost: one", "localhost: two"]
    assert machine.ups() == ([] if task["verb"] == "follow" else ["app=2"])


def test_nobody_is_waited_for_in_check_mode(machine: Machine) -> None:
    """Check mode only looks."""
    with begun(machine):
        played = machine.play({"verb": "follow"}, check=True)
        (machine.folder / "go").touch()
    assert [one["changed"] for one in played.results] == [False]
    assert "follows what" not in played.text
