"""Runs of Ansible that are interrupted at a chosen point, as by Ctrl-C, a crash of the controller or a cut network."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.faults.lab import RUN_TIMEOUT_S, command
from bench.playbook import INTERRUPT
from bench.project import ROOT, load_mapping

STEP = re.compile(r"^  i-[0-9a-f]+: ", re.MULTILINE)
"""How ansible-playbook shows each step of a job of the machine."""
CTRL_C = "SIGINT"
JOB_KILLED = "flask-fleet killed"
PATIENCE_S = 240
"""Longer than a deploy takes on a busy machine, in seconds."""
POLL_S = 0.05
SSH_FILTER = ["INPUT", "--protocol", "tcp", "--dport", "22", "--jump", "REJECT", "--reject-with", "tcp-reset"]


@dataclass(frozen=True)
class Point:
    """Where a run is interrupted: at the start of a task, or after a step inside the roll-out.

    Attributes:
        task: Number of the task, from 1; 0 for none.
        step: Number of the step, from 1; 0 for none.
    """

    name: str
    task: int = 0
    step: int = 0


def _environment(**variables: str) -> dict[str, str]:
    # Molecule asks for colours, which are between the words that are looked for.
    return os.environ | INTERRUPT | {"ANSIBLE_FORCE_COLOR": "false"} | variables


def points(log: Path, arguments: list[str]) -> list[Point]:
    """Run a deploy to its end to find out where others can be interrupted; its output goes to ``log``.

    Returns:
        The start of every task in their order, then every step inside the roll-out in theirs.
    """
    names = log.with_suffix(".tasks")
    with log.open("w") as output:
        done = subprocess.run(
            command("deploy", *arguments),
            cwd=ROOT,
            env=_environment(FAULTS_TASKS=str(names)),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
    assert done.returncode == 0, log.read_text()[-3000:]
    tasks = [Point(f"before task {number}, {name}", task=number) for number, name in enumerate(_lines(names), 1)]
    steps = [Point(f"after step {number} of the roll-out", step=number) for number in range(1, _steps(log) + 1)]
    assert tasks, "no task was seen"
    assert steps, "no step was seen"
    return [*tasks, *steps]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def _steps(log: Path) -> int:
    return len(STEP.findall(log.read_text()))


class Ssh:
    """The SSH port of an instance of the rehearsal, which can be closed, and another way in that stays open."""

    def __init__(self, instance_id: str) -> None:
        """Find the container that an EC2 instance of the rehearsal is."""
        listing = ["docker", "ps", "--quiet", "--filter", f"name={instance_id}"]
        self.container = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.strip()
        assert self.container, f"{instance_id} is not an instance of a rehearsal on this machine"

    def command(self, action: str) -> list[str]:
        """Write the command that closes or opens SSH, also for established connections.

        ``action`` is ``--insert`` to close and ``--delete`` to open.
        """
        return ["docker", "exec", self.container, "iptables", "--wait", action, *SSH_FILTER]

    def cut(self) -> None:
        """Close SSH."""
        subprocess.run(self.command("--insert"), check=True, timeout=30)

    @contextmanager
    def mended(self) -> Iterator[None]:
        """Open SSH again after a block, however often it was closed."""
        try:
            yield
        finally:
            while (
                subprocess.run(self.command("--delete"), check=False, capture_output=True, timeout=30).returncode == 0
            ):
                pass

    def kill_job(self) -> None:
        """Kill the process on the instance that does the roll-out, unless it has just ended."""
        notes = load_mapping(ROOT / "roles/stack/defaults/main.yml")["stack_directory"] + "/job.jsonl"
        script = f"kill -s KILL $(head -n 1 {notes} | sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/') || true"
        subprocess.run(["docker", "exec", self.container, "sh", "-c", script], check=True, timeout=30)


class Interruption:
    """One way of interrupting a run."""

    def __init__(self, name: str, at_task: str, at_step: Callable[[int], None]) -> None:
        """Describe a way of interrupting a run.

        Args:
            at_task: Command that interrupts from inside the run; ``{pid}`` stands for its main process.
            at_step: Interrupts from outside, given the process id.
        """
        self.name = name
        self._at_task = at_task
        self._at_step = at_step

    def run(self, point: Point, log: Path, arguments: list[str]) -> int:
        """Run a deploy, interrupt it at a point, and return its exit status.

        ``log`` takes what the deploy prints; ``arguments`` are further ones of ansible-playbook.
        """
        chosen = {"FAULTS_AT": str(point.task), "FAULTS_DO": self._at_task} if point.task else {}
        with log.open("w") as output:
            process = subprocess.Popen(
                command("deploy", *arguments),
                cwd=ROOT,
                env=_environment(**chosen),
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches all processes of a terminal, and these are to be a terminal's own.
                start_new_session=True,
            )
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while point.step and process.poll() is None and _steps(log) < point.step and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if point.step and process.poll() is None:
            self._at_step(process.pid)
        try:
            return process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            if self.name != CTRL_C:
                raise
            # ansible-core waits for ever when a worker was ended while it held the queue of results, and a person who
            # pressed Ctrl-C does so again.
            os.killpg(process.pid, signal.SIGINT)
            return process.wait(timeout=RUN_TIMEOUT_S)


def ways(ssh: Ssh) -> list[Interruption]:
    """List the ways of interrupting a run: Ctrl-C, a killed controller process, and a cut connection."""
    return [
        Interruption(CTRL_C, "kill -s INT -- -{pid}", lambda pid: os.killpg(pid, signal.SIGINT)),
        Interruption("SIGKILL", "kill -s KILL {pid}", lambda pid: os.kill(pid, signal.SIGKILL)),
        Interruption("SSH cut", shlex.join(ssh.command("--insert")), lambda _: ssh.cut()),
    ]


def ways_at_a_step(ssh: Ssh) -> list[Interruption]:
    """List the ways of interrupting a roll-out; beside the others its own process on the machine may be killed."""
    return [*ways(ssh), Interruption(JOB_KILLED, "", lambda _: ssh.kill_job())]
