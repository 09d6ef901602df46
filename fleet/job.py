"""A job of the machine: it goes on when whoever started it is gone, there is one at a time, and its steps are noted.

The kernel keeps the lock for as long as the process lives, so no job that was killed keeps the next one out.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fleet.system import CancelledError, FleetError, run, utc, write

START_S = 20
"""How long a job may take until it notes that it began."""
POLL_S = 0.1
ASKED_S = 2
"""For how long somebody who only asks could have the lock."""
SYSTEMD = Path("/run/systemd/system")
PASSED_ON = ("DOCKER_", "COMPOSE_", "HOME", "PATH", "XDG_")
"""Variables that a job of systemd needs as well, by how they begin."""

Say = Callable[[str], None]


class BusyError(FleetError):
    """Another job is under way."""


@dataclass(frozen=True)
class Progress:
    """What a job noted."""

    id: str = ""
    what: str = ""
    who: str = ""
    began: float = 0.0
    pid: int = 0
    lines: tuple[str, ...] = ()
    """What it said, from the one that was asked for on."""
    ended: bool = True
    result: Mapping[str, Any] = field(default_factory=dict)
    """How it ended: ``failed``, ``changed`` and ``msg``; empty while it goes on, and when it was killed."""

    @property
    def was_killed(self) -> bool:
        """Tell whether it ended without saying how."""
        return bool(self.id) and self.ended and not self.result

    def describe(self) -> str:
        """Say for a person who does what."""
        return f"{self.what} by {self.who}, begun at {utc(self.began)} UTC"


@dataclass(frozen=True)
class Job:
    """What a job is told."""

    who: str
    """Who wants it, and why."""
    say: Say
    """Tells of a step."""
    last: Progress
    """The job before it."""


class Jobs:
    """The jobs of the stack in one folder."""

    def __init__(self, directory: Path) -> None:
        """Name the folder; it need not exist."""
        self._lock = directory / "job.lock"
        self._notes = directory / "job.jsonl"

    def progress(self, since: int = 0) -> Progress:
        """Read what the job that is under way, or else the last one, noted.

        Args:
            since: How many of its lines are known already.
        """
        # Before the notes are read, because a job notes its end before it lets go of the lock.
        is_held = self._is_held()
        return self._progress(since, is_held=is_held)

    def follow(self, since: int, seconds: float) -> Progress:
        """Wait until there is more than the lines that are known, or the job has ended.

        Args:
            since: How many lines are known.
            seconds: How long to wait at most.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self.progress(since)
            if found.lines or found.ended or time.monotonic() > deadline:
                return found
            time.sleep(POLL_S)

    def start(self, what: str, who: str, command: Sequence[str]) -> Progress:
        """Start a job that outlives this process, and wait until it has begun.

        Args:
            what: Such as ``deploy 0123456789ab``.
            who: Who wants it, and why.
            command: Program and arguments, which are to call ``work`` with the id that is put behind them.

        Raises:
            BusyError: Another one is under way.
            FleetError: It does not begin.
        """
        self._refuse_second()
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        identity = uuid.uuid4().hex[:12]
        _launch(f"flask-fleet-{identity}", f"flask-fleet: {what} by {who}", [*command, identity])
        deadline = time.monotonic() + START_S
        while True:
            found = self.progress()
            if found.id == identity:
                return found
            if time.monotonic() > deadline:
                self._refuse_second()
                raise FleetError(f"the job ({what}) does not begin; see: journalctl -u flask-fleet-{identity}")
            time.sleep(POLL_S)

    def work(self, identity: str, what: str, who: str, task: Callable[[Job], Mapping[str, Any]]) -> bool:
        """Be a job: note what is said and how it ends.

        Args:
            identity: Its id.
            what: As for ``start``.
            who: As for ``start``.
            task: What to do.

        Returns:
            Whether it succeeded.

        Raises:
            BusyError: Another one is under way.
        """
        with self._alone():
            before = self._progress(0, is_held=False)
            write(self._notes, "")
            with self._notes.open("a", encoding="utf-8") as notes:
                head = {"id": identity, "what": what, "who": who, "began": time.time(), "pid": os.getpid()}
                _note(notes, head)
                result = _result(lambda: task(Job(who, lambda text: _note(notes, {"say": text}), before)))
                _note(notes, {"result": result})
        return not result["failed"]

    def cancel(self) -> Progress:
        """Have the job that is under way end, and put back what it changed.

        Raises:
            FleetError: None is under way.
        """
        found = self.progress()
        if found.ended:
            raise FleetError("Nothing is under way here.")
        os.kill(found.pid, signal.SIGTERM)
        return found

    def _refuse_second(self) -> None:
        if self._is_held():
            raise BusyError(f"Another job is under way here: {self.progress().describe()}")

    def _progress(self, since: int, *, is_held: bool) -> Progress:
        notes = self._read()
        if not notes:
            return Progress()
        head, *rest = notes
        said = [note["say"] for note in rest if "say" in note]
        result: dict[str, Any] = next((note["result"] for note in rest if "result" in note), {})
        return Progress(**head, lines=tuple(said[since:]), ended=not is_held or bool(result), result=result)

    def _is_held(self) -> bool:
        if not self._lock.exists():
            return False
        with self._lock.open() as lock:
            return not _try(lock, fcntl.LOCK_SH)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        deadline = time.monotonic() + ASKED_S
        with self._lock.open("a") as lock:
            while not _try(lock, fcntl.LOCK_EX):
                # Whoever only asks has it for a moment.
                if time.monotonic() > deadline:
                    raise BusyError(f"Another job is under way here: {self.progress().describe()}")
                time.sleep(POLL_S)
            yield

    def _read(self) -> list[dict[str, Any]]:
        if not self._notes.exists():
            return []
        lines = self._notes.read_text(encoding="utf-8").splitlines(keepends=True)
        # The last one may be half written.
        return [json.loads(line) for line in lines if line.endswith("\n")]


def _try(lock: IO[str], how: int) -> bool:
    """Take a lock if nobody else has it."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(notes: IO[str], note: Mapping[str, Any]) -> None:
    notes.write(json.dumps(note) + "\n")
    notes.flush()


def _result(task: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Do it, and say how it ended, whatever happens; a person may cancel it once."""

    def cancel(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise CancelledError("It was cancelled.")

    signal.signal(signal.SIGTERM, cancel)
    try:
        return {"failed": False, "changed": True, "msg": "", **task()}
    except (FleetError, CancelledError) as error:
        return {"failed": True, "changed": True, "msg": str(error)}
    except Exception as error:  # noqa: BLE001 - nobody is there to see it otherwise
        return {"failed": True, "changed": True, "msg": f"{error}\n{traceback.format_exc()}"}


def _launch(unit: str, description: str, command: Sequence[str]) -> None:
    """Start a process that outlives the session of whoever starts it."""
    if os.geteuid() == 0 and SYSTEMD.is_dir() and shutil.which("systemd-run"):
        given = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        environment = [f"--setenv={name}={value}" for name, value in given.items()]
        # Before the engine, when the machine goes down; what the job runs is ended by the job.
        how = ["--property=After=docker.service", "--property=KillMode=mixed", "--collect", "--quiet"]
        run(["systemd-run", f"--unit={unit}", f"--description={description}", *how, *environment, "--", *command])
        return
    nowhere = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
