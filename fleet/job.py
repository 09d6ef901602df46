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
from contextlib import contextmanager, suppress
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

    def __init__(self, job: Progress) -> None:
        """Say which."""
        super().__init__(f"Another job is under way here: {job.describe()}")


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
        self._notes_before = directory / "job.before.jsonl"

    def progress(self, since: int = 0, job: str = "") -> Progress:
        """Read what the job that is under way, or else the last one, noted after the first ``since`` lines.

        If ``job`` is the id of one that is still known, that one is meant, which may be the one before.
        """
        found = self._read(since)
        if found.was_killed:
            # Or it began after the lock was looked at; then a second look tells.
            found = self._read(since)
        before = _progress(self._notes_before, since, is_held=False) if job not in ("", found.id) else found
        return before if before.id == job else found

    def follow(self, since: int, seconds: float, job: str = "") -> Progress:
        """Wait until there are more than ``since`` lines, the job has ended, or the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.progress(since, job)
            if found.lines or found.ended or time.monotonic() > deadline:
                return found
            time.sleep(POLL_S)

    def start(self, what: str, who: str, command: Sequence[str]) -> Progress:
        """Start a job that outlives this process, and wait until it has begun.

        ``what`` is such as ``deploy 0123456789ab``, ``who`` says who wants it and why, and ``command`` is to call
        ``work`` with the two ids that are put behind its arguments.

        Raises:
            BusyError: Another one is under way.
            FleetError: It does not begin.
        """
        last = self.progress()
        if not last.ended:
            raise BusyError(last)
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        identity = uuid.uuid4().hex[:12]
        _launch(f"flask-fleet-{identity}", f"flask-fleet: {what} by {who}", [*command, last.id, identity])
        deadline = time.monotonic() + START_S
        while True:
            found = self.progress(job=identity)
            if found.id == identity:
                return found
            if found.id != last.id:
                raise BusyError(found)
            if time.monotonic() > deadline:
                raise FleetError(f"the job ({what}) does not begin; see: journalctl -u flask-fleet-{identity}")
            time.sleep(POLL_S)

    def work(self, after: str, identity: str, what: str, who: str, task: Callable[[Job], Mapping[str, Any]]) -> bool:
        """Be the job with an id: note what is said and how it ends; tell whether it succeeded.

        ``after`` is the id of the job before it, or empty. When there was another one meanwhile, this one is not wanted
        any more, because whoever started it was told so.

        Raises:
            BusyError: Another one is under way, or was.
        """
        with self._alone():
            before = self._read(0, is_held=False)
            if before.id != after:
                raise BusyError(before)
            if before.id:
                write(self._notes_before, self._notes.read_text(encoding="utf-8"))
            # Whoever reads the notes may cancel it from then on, which is not heard before it begins.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            head = {"id": identity, "what": what, "who": who, "began": time.time(), "pid": os.getpid()}
            write(self._notes, _line(head))
            with self._notes.open("a", encoding="utf-8") as notes:

                def say(text: str) -> None:
                    # A full disk is no reason to stop half way.
                    with suppress(OSError):
                        _note(notes, {"say": text})

                result = _result(lambda: task(Job(who, say, before)))
                _note(notes, {"result": result})
        return not result["failed"]

    def cancel(self) -> Progress:
        """Have the job that is under way end, and put back what it changed."""
        found = self.progress()
        if found.ended:
            raise FleetError("Nothing is under way here.")
        try:
            os.kill(found.pid, signal.SIGTERM)
        except OSError as error:
            raise FleetError(f"Not cancelled: {found.describe()}: {error.strerror}") from error
        return found

    def _read(self, since: int, *, is_held: bool | None = None) -> Progress:
        # Before the notes are read, because a job notes its end before it lets go of the lock.
        is_held = self._is_held() if is_held is None else is_held
        return _progress(self._notes, since, is_held=is_held)

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
                    raise BusyError(self.progress())
                time.sleep(POLL_S)
            yield


def _progress(file: Path, since: int, *, is_held: bool) -> Progress:
    """Read the notes of a job; ``is_held`` says whether it may be under way."""
    if not file.exists():
        return Progress()
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    # The last one may be half written.
    head, *rest = [json.loads(line) for line in lines if line.endswith("\n")]
    said = [note["say"] for note in rest if "say" in note]
    result: dict[str, Any] = next((note["result"] for note in rest if "result" in note), {})
    return Progress(**head, lines=tuple(said[since:]), ended=not is_held or bool(result), result=result)


def _try(lock: IO[str], how: int) -> bool:
    """Take a lock if nobody else has it."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _line(note: Mapping[str, Any]) -> str:
    return json.dumps(note) + "\n"


def _note(notes: IO[str], note: Mapping[str, Any]) -> None:
    notes.write(_line(note))
    notes.flush()


def _result(task: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Do it, and say how it ended, whatever happens; a person may cancel it once."""

    def deafen() -> None:
        # Not SIG_IGN, which the commands that it runs would inherit.
        signal.signal(signal.SIGTERM, lambda *_: None)

    def cancel(*_: object) -> None:
        deafen()
        raise CancelledError("It was cancelled.")

    signal.signal(signal.SIGTERM, cancel)
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            return {"failed": False, "changed": True, "msg": "", **task()}
        finally:
            deafen()
    except (FleetError, CancelledError) as error:
        return {"failed": True, "changed": True, "msg": str(error)}
    except BaseException as error:  # noqa: BLE001 - nobody is there to see it otherwise
        return {"failed": True, "changed": True, "msg": f"{error}\n{traceback.format_exc()}"}


def _launch(unit: str, description: str, command: Sequence[str]) -> None:
    """Start a process that outlives the session of whoever starts it."""
    if os.geteuid() == 0 and SYSTEMD.is_dir() and shutil.which("systemd-run"):
        given = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        environment = [f"--setenv={name}={value}" for name, value in given.items()]
        # Before the engine, when the machine goes down; what the job runs is ended by the job.
        how = ["--property=After=docker.service", "--property=KillMode=mixed", "--collect", "--quiet"]
        # It would put a variable in the place of each ${NAME}.
        words = [word.replace("$", "$$") for word in command]
        run(["systemd-run", f"--unit={unit}", f"--description={description}", *how, *environment, "--", *words])
        return
    nowhere = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
