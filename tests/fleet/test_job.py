"""Jobs of the machine with real processes: one at a time, recorded, and independent of whoever starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from fleet import job
from fleet.job import BusyError, Jobs, Progress
from fleet.system import FleetError
from tests.project import ROOT

# That nobody waits for a job is the point.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

PATIENCE_S = 60
MANY = 5
RACES = 3
LINES = 300
WHO = "jane: hotfix"

WORKER = """
import os, resource, signal, subprocess, sys, time
from pathlib import Path
import fleet.job
from fleet.job import BusyError, Jobs
from fleet.system import CancelledError, FleetError, write

folder, kind, after, identity = Path(sys.argv[1]), *sys.argv[2:]

def count(job):
    for number in range(int(os.environ["LINES"])):
        job.say(f"{number}: \\u2028 \\u00e4\\nits second line")
    return {"msg": "counted"}

def wait(job):
    job.say(f"after {job.last.id or 'none'}, killed: {job.last.was_killed}")
    until = time.monotonic() + 120
    while not (folder / "go").exists() and time.monotonic() < until:
        time.sleep(0.01)
    return {"changed": False}

def go_back(job):
    try:
        wait(job)
    except CancelledError as error:
        job.say("going back")
        time.sleep(0.5)
        # 1 << 14 is the bit of SIGTERM in the sets of a process.
        job.say(subprocess.run(["grep", "^Sig[BI]", "/proc/self/status"], capture_output=True, text=True).stdout)
        raise FleetError(f"{error} It went back.") from error

def be_cancelled_early(job):
    raise AssertionError("it began")

def fill_the_disk(job):
    job.say("before")
    size = (folder / "job.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    job.say("while it is full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {}

def fail(job):
    raise FleetError("no such release")

def break_down(job):
    raise ValueError("a mistake of ours")

def leave(job):
    sys.exit("left")

def write_and_be_cancelled(path, text):
    write(path, text)
    os.kill(os.getpid(), signal.SIGTERM)

if kind == "be_cancelled_early":
    fleet.job.write = write_and_be_cancelled

try:
    Jobs(folder).work(after, identity, kind, "jane: hotfix", globals()[kind])
    note = "ran"
except BusyError:
    note = "refused"
with (folder / note).open("a") as notes:
    notes.write(f"{identity}\\n")
"""

STARTER = """
import sys, time
from pathlib import Path
from fleet.job import Jobs
folder, *command = sys.argv[1:]
print(Jobs(Path(folder)).start("wait", "jane: hotfix", command).pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(job, "SYSTEMD", tmp_path / "no-systemd")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LINES", str(LINES))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stack"


def command(folder: Path, kind: str) -> list[str]:
    return [sys.executable, "-c", WORKER, str(folder), kind]


def start(folder: Path, kind: str) -> Progress:
    return Jobs(folder).start(kind, WHO, command(folder, kind))


def ended(folder: Path) -> Progress:
    """Wait for the end of the job that is under way."""
    known: tuple[str, ...] = ()
    while True:
        found = Jobs(folder).follow(len(known), PATIENCE_S)
        assert found.lines or found.ended, "nothing happens"
        known += found.lines
        if found.ended:
            return Progress(**(vars(found) | {"lines": known}))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never was"
        time.sleep(0.02)


def listed(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines() if (folder / name).exists() else []


def test_nothing_is_created_where_there_is_no_stack(folder: Path) -> None:
    assert Jobs(folder).progress() == Progress()
    assert Jobs(folder).follow(0, PATIENCE_S).ended
    with pytest.raises(FleetError, match="Nothing is under way here"):
        Jobs(folder).cancel()
    assert not folder.exists()


def test_job_goes_on_when_whoever_started_it_is_killed(folder: Path) -> None:
    """A cut connection ends the session and all of its processes."""
    words = [sys.executable, "-c", STARTER, str(folder), *command(folder, "wait")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline())
        session = os.getsid(pid)
        os.killpg(starter.pid, signal.SIGHUP)
        os.killpg(starter.pid, signal.SIGKILL)
    assert session == pid
    assert not Jobs(folder).progress().ended
    (folder / "go").touch()
    found = ended(folder)
    assert found.pid == pid
    assert found.result == {"failed": False, "changed": False, "msg": ""}


def test_second_is_told_who_is_there_and_since_when(folder: Path) -> None:
    first = start(folder, "wait")
    with pytest.raises(BusyError, match=r"^Another job is under way here: wait by jane: hotfix, begun at 20.* UTC$"):
        start(folder, "count")
    # Also one that somebody types, without asking first.
    typed = [*command(folder, "count"), first.id, "typed"]
    assert subprocess.run(typed, timeout=PATIENCE_S, check=False).returncode == 0
    (folder / "go").touch()
    assert ended(folder).id == first.id
    assert listed(folder, "refused") == ["typed"]


def at_once(folder: Path, kind: str) -> list[str]:
    """Start a job from many processes at once, and return the ids of those that began."""
    together = Barrier(MANY)

    def one_of_them(_: int) -> str:
        together.wait()
        try:
            return start(folder, kind).id
        except BusyError:
            return ""

    with ThreadPoolExecutor(MANY) as pool:
        return [one for one in pool.map(one_of_them, range(MANY)) if one]


def test_of_many_at_once_exactly_one_runs(folder: Path) -> None:
    ran: list[str] = []
    for _ in range(RACES):
        (begun,) = at_once(folder, "wait")
        ran.append(begun)
        (folder / "go").touch()
        assert ended(folder).id == begun
        wait_for(lambda: not _workers(folder))
        (folder / "go").unlink()
    assert listed(folder, "ran") == ran


def test_who_is_refused_never_runs_later(folder: Path) -> None:
    """A refused job does not start even if the first one ends before the others look."""
    for _ in range(RACES):
        begun = at_once(folder, "fail")
        assert begun
        wait_for(lambda: not _workers(folder))
        assert sorted(listed(folder, "ran")) == sorted(begun)
        (folder / "ran").unlink()


def _workers(folder: Path) -> list[str]:
    lines = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(folder) in line and not line.startswith("Z")]


def test_killed_job_keeps_nobody_out(folder: Path) -> None:
    """The kernel releases the lock, and the next job learns that there may be something to repair."""
    first = start(folder, "wait")
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: Jobs(folder).progress().ended)
    assert Jobs(folder).progress().was_killed
    start(folder, "wait")
    (folder / "go").touch()
    second = ended(folder)
    assert second.lines == (f"after {first.id}, killed: True",)
    assert not second.was_killed
    assert listed(folder, "ran") == [second.id]


def test_each_line_comes_once_and_in_order(folder: Path) -> None:
    start(folder, "count")
    found = ended(folder)
    assert list(found.lines) == [f"{number}: \u2028 \u00e4\nits second line" for number in range(LINES)]
    assert found.result["msg"] == "counted"


def test_line_that_is_half_written_comes_when_it_is_whole(folder: Path) -> None:
    """A follower reads while the job writes; half a line of a killed job is never shown."""
    begun, notes = start(folder, "wait"), folder / "job.jsonl"
    whole = Jobs(folder).follow(0, PATIENCE_S).lines
    assert whole == ("after none, killed: False",)
    said = json.dumps({"say": "more"}) + "\n"
    for half, seen in ((said[:-4], ()), (said[-4:], ("more",)), (said[:6], ("more",))):
        with notes.open("a") as file:
            file.write(half)
        assert Jobs(folder).progress(len(whole)).lines == seen
    os.kill(begun.pid, signal.SIGKILL)
    assert ended(folder).lines == (*whole, "more")
    assert Jobs(folder).progress().was_killed


def test_cancelled_job_goes_back_and_says_so(folder: Path) -> None:
    """A second request is ignored, and the commands that it runs while it goes back can still be ended."""
    begun = start(folder, "go_back")
    Jobs(folder).follow(0, PATIENCE_S)
    assert Jobs(folder).cancel().id == begun.id
    Jobs(folder).follow(1, PATIENCE_S)
    Jobs(folder).cancel()
    found = ended(folder)
    assert found.result == {"failed": True, "changed": True, "msg": "It was cancelled. It went back."}
    assert found.lines[1] == "going back"
    sets = [int(line.split()[1], 16) for line in found.lines[2].splitlines()]
    assert len(sets) == 2
    assert not any(one & 1 << (signal.SIGTERM - 1) for one in sets)


def test_job_that_is_cancelled_before_it_begins_notes_it(folder: Path) -> None:
    start(folder, "be_cancelled_early")
    assert ended(folder).result["msg"] == "It was cancelled."


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fail", r"^no such release$"),
        ("break_down", r"^a mistake of ours\nTraceback(.|\n)*ValueError"),
        ("leave", r"^left\n"),
    ],
)
def test_failure_is_noted_whatever_it_is(folder: Path, kind: str, message: str) -> None:
    start(folder, kind)
    found = ended(folder)
    assert found.result["failed"]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found.result["msg"])


def test_full_disk_does_not_stop_a_job_half_way(folder: Path) -> None:
    start(folder, "fill_the_disk")
    found = ended(folder)
    assert found.result["failed"] is False
    assert found.lines == ("before", "while it is full")


def test_job_before_is_still_known_by_its_id(folder: Path) -> None:
    """Whoever followed it may ask for its end after another one has begun."""
    start(folder, "count")
    first = ended(folder)
    start(folder, "fail")
    second = ended(folder)
    jobs = Jobs(folder)
    assert jobs.progress(job=first.id) == first
    assert jobs.progress(LINES - 1, first.id).lines == first.lines[-1:]
    assert jobs.progress(job=second.id) == jobs.progress() == jobs.progress(job="nobody's") == second


def test_job_that_does_not_begin_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "START_S", 0.2)
    said = r"the job \(deploy x\) does not begin; see: journalctl -u flask-fleet-[0-9a-f]+"
    with pytest.raises(FleetError, match=said):
        Jobs(folder).start("deploy x", WHO, ["false"])


def test_job_of_systemd_is_a_unit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets only the variables that the engine's client reads, and systemd changes no word of the command."""
    folder = tmp_path / "costs $5 ${HOME}"
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "systemd-run"
    fake.write_text(
        f"#!{sys.executable}\nimport json, os, sys\njson.dump(sys.argv[1:], open('{tmp_path}/asked', 'w'))\n"
        "words = [word.replace('$$', '$') for word in sys.argv[sys.argv.index('--') + 1:]]\n"
        "os.execvp(words[0], words)\n"
    )
    fake.chmod(0o755)
    (tmp_path / "systemd").mkdir()
    monkeypatch.setattr(job, "SYSTEMD", tmp_path / "systemd")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    variables = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "LINES": "1"}
    monkeypatch.setattr("os.environ", variables | {"DOCKER_HOST": "unix:///a b", "SSH_AUTH_SOCK": "/x"})
    begun = start(folder, "count")
    asked = json.loads((tmp_path / "asked").read_text())
    options, words = asked[: asked.index("--")], asked[asked.index("--") + 1 :]
    assert words == [word.replace("$", "$$") for word in (*command(folder, "count"), "", begun.id)]
    assert ended(folder).lines, "it is what was asked for"
    assert options == [
        f"--unit=flask-fleet-{begun.id}",
        "--description=flask-fleet: count by jane: hotfix",
        "--property=After=docker.service",
        "--property=KillMode=mixed",
        "--collect",
        "--quiet",
        f"--setenv=PATH={programs}:{os.environ['PATH'].partition(':')[2]}",
        "--setenv=DOCKER_HOST=unix:///a b",
    ]
