"""What happens to the machine as a whole: its engine, its power, its disk, its memory."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from bench.app import edit, services
from bench.faults.lab import Lab, extra, play
from bench.faults.rows import Book

BALLAST_MIB = 60
LEFT_MIB = 20
STOP_FILE = "/run/faults-memory-stop"
MICRO_MIB = 1024


AWAY_S = 10
ENGINE_ENDS = {
    "dockerd restarted": "systemctl restart docker",
    "SIGKILL of dockerd": "kill -KILL $(systemctl show --property MainPID --value docker)",
    f"dockerd away for {AWAY_S} s": "systemctl stop docker.socket docker;"
    f" sleep {AWAY_S}; systemctl start docker.socket docker",
}


@pytest.mark.parametrize("event", ENGINE_ENDS)
def test_engine_ends(lab: Lab, book: Book, event: str) -> None:
    """An update restarts the engine and a lack of memory kills it; the containers must live on and serve."""
    with book.row(event) as row:
        before = lab.ids()
        # systemd gives up after three starts in a minute, those of earlier tests included.
        lab.host.check_output("systemctl reset-failed docker")
        with lab.load() as load:
            time.sleep(3)
            lab.host.check_output(ENGINE_ENDS[event])
        row.load(load.report())
        row.most("longest gap (s)", load.report().longest_gap, 2)
        row.holds("it runs again", lab.host.service("docker").is_running)
        row.holds("the same containers", lab.ids() == before)
        row.holds("no rule of ours is left", "PUBLISHED-PORTS" not in lab.host.check_output("iptables-save"))


def test_instance_rebooted(lab: Lab, book: Book) -> None:
    """After a reboot the stack must come back although nobody types a command."""
    with book.row("instance rebooted") as row:
        began = time.monotonic()
        lab.ec2.reboot_instances(InstanceIds=[lab.stack.instance_id])
        lab.stack.wait_for("it goes down", lambda: not _serves(lab))
        down = time.monotonic() - began
        lab.stack.wait_for("it serves again", lambda: _serves(lab))
        row.figure("no answer from second", down)
        row.figure("serving again after (s)", time.monotonic() - began)
        lab.stack.wait_for("all replicas answer", lambda: len(lab.stack.ask(30)) == lab.stack.replicas)
        row.figure("all replicas serve after (s)", time.monotonic() - began)
        row.holds("serving again without any command", truth=True)


def _serves(lab: Lab) -> bool:
    try:
        return lab.stack.get("/").status == 200
    except OSError:
        return False


def test_full_disk(lab: Lab, book: Book, app: Path) -> None:
    """A deploy on a full disk leaves nothing half written.

    The engine's data and the stack's files are moved to a small disk of their own, because the rehearsal's disk is the
    controller's.
    """
    with book.row("disk of the instance full during a deploy") as row:
        lab.inside("small_disk")
        try:
            lab.settle()
            before, live, left = lab.ids(), lab.live(), lab.leftovers()
            (app / "hello/ballast").write_bytes(os.urandom(BALLAST_MIB * 2**20))
            outcomes = []
            with lab.load() as load:
                for leave in (LEFT_MIB, 0):
                    lab.inside("fill", str(leave))
                    edit(app / "hello/templates/index.html", "from Flask", "from Flask, big")
                    run = play("deploy", *extra(stack_services=services(app)))
                    outcomes.append(run)
                    row.holds(f"with {leave} MiB left the run fails", not run.ok)
                    row.holds(f"with {leave} MiB left it says so", re.search(r"(?i)disk|space|bytes", run.said))
                    row.figure(f"with {leave} MiB left it says", _message(run.said))
            row.load(load.report())
            row.holds("the old version serves, all of it", lab.ids() == before)
            row.holds("no file is truncated", lab.live() == live)
            after = lab.leftovers()
            row.figure("left behind", str({name: after[name] for name in after if after[name] != left[name]}))
            lab.inside("unfill")
            again = play("deploy", *extra(stack_services=services(app)))
            row.holds("with room again the same deploy works", again.ok)
            row.holds("nothing is left behind then", lab.leftovers() == left)
        finally:
            lab.inside("whole_disk")


def _message(output: str) -> str:
    found = re.search(r"^\s*msg: *(?:[|>]-?\s+)?(.+)$|ERROR.*", output, re.MULTILINE)
    return found[0].strip()[:300] if found else ""


def test_memory_of_a_deploy(lab: Lab, book: Book, app: Path) -> None:
    """The smallest machine has to hold the additional memory that a deploy needs for a moment."""
    with book.row("memory during a deploy") as row:
        watch = lab.beside("memory", STOP_FILE)
        try:
            with lab.load() as load:
                edit(app / "hello/templates/index.html", "from Flask", "from Flask, measured")
                lab.deploy(app)
        finally:
            lab.host.check_output(f"touch {STOP_FILE}")
        found = watch.result()
        row.load(load.report())
        row.most("peak of the instance's memory (MiB)", found["peak"], MICRO_MIB)
        row.most("processes ended for want of memory", found["killed"], 0)
        row.figure("memory of the instance (MiB)", found["limit"])
