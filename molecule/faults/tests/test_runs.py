"""Deploys that are interrupted, that meet each other, and many of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from bench.app import edit, services
from bench.faults.interruption import JOB_KILLED, Interruption, Point, Ssh, points, ways, ways_at_a_step
from bench.faults.lab import Lab, extra, play
from bench.faults.rows import Book, Row
from bench.playbook import Outcome

EVERY = int(os.environ.get("FAULTS_EVERY", "1"))
"""A number above 1 is for trying these tests out: they repeat less, under another name in the table."""
TURN = int(os.environ.get("FAULTS_TURN", "0"))
TURNS = 3
"""Turns until every boundary was interrupted once; times the number of ways, until each was in all ways."""
RACES = 20 // EVERY
DEPLOYS = 30 // EVERY
SETTLED = 10 // EVERY
"""Number of the deploy after which nothing may grow any more: more than the releases that are kept."""
FOLLOWS = "follows what is under way here"
RATE = 40
"""Requests per second: enough to notice every gap, and most of the CPU is left to hundreds of deploys."""
GROWTH = {"disk (MiB)": 5, "memory of nginx (MiB)": 2, "memory of dockerd (MiB)": 30, "open files of dockerd": 4}
"""Growth after twenty deploys that is no leak yet; nothing else may grow at all."""
BOUNDED = "build cache (MiB)"
"""A figure that grows up to ``defaultKeepStorage`` in ``docker_daemon_options``; ``counts`` empties the cache."""


class Rerun:
    """A deploy that was interrupted, and the one that comes after it."""

    def __init__(self, lab: Lab, folder: Path, change: Callable[[int], list[str]]) -> None:
        """Record how a machine looks on which nothing was interrupted.

        ``folder`` takes the logs. ``change`` makes the version with the given number and returns the arguments that
        deploy it.
        """
        self.lab, self.folder, self.change = lab, folder, change
        self.ssh = Ssh(lab.stack.instance_id)
        self.number = 0
        # ansible-core misses a Ctrl-C that comes between two of its tasks.
        self.unnoticed = 0
        self.points = points(*self._new_version())
        self.clean = lab.leftovers()
        self.replicas = lab.ids()

    def _new_version(self) -> tuple[Path, list[str]]:
        self.number += 1
        return self.folder / f"{self.number}.log", self.change(self.number)

    def interrupt(self, point: Point, way: Interruption) -> list[str]:
        """Interrupt a deploy, run it again, and return what is wrong afterwards; an empty list is a success.

        After an interruption at an odd step, unless the job itself was killed, it also checks that the roll-out goes on
        to its end. After any other it runs the deploy again without waiting for that.
        """
        log, arguments = self._new_version()
        with self.ssh.mended():
            self.unnoticed += way.run(point, log, arguments) == 0
        wrong = []
        if point.step % 2 and way.name != JOB_KILLED:
            self.lab.host.run("flask-fleet follow")
            if not self._is_whole():
                wrong.append("the roll-out does not go on to its end")
        again = play("deploy", *arguments)
        if not again.ok:
            wrong.append(f"the rerun fails: {_reason(again)}")
            self.lab.settle()
            assert play("deploy", *arguments).ok
        elif not self._is_whole():
            wrong.append("the rerun does not converge")
        left = self.lab.leftovers()
        wrong += [f"left behind, {name}: {left[name]}" for name in left if left[name] != self.clean[name]]
        return wrong

    def _is_whole(self) -> bool:
        return len(self.lab.ids()) == len(self.replicas) and self.lab.nginx_is_current()


def _reason(run: Outcome) -> str:
    lines = [line.strip() for line in run.said.splitlines() if "msg:" in line or "ERROR" in line]
    return lines[0][:200] if lines else f"status {run.done.returncode}"


def test_interrupted_at_every_boundary(lab: Lab, book: Book, app: Path, tmp_path: Path) -> None:
    """Runs with $FAULTS_TURN 0, 1 and 2 interrupt every boundary once; further turns do it in the other ways."""
    part, shift = TURN % TURNS, TURN // TURNS

    def change(number: int) -> list[str]:
        edit(app / "hello/templates/index.html", "from Flask", f"from Flask {number}")
        # Two are enough to be replaced one by one, and take less time than three.
        return extra(stack_services=services(app, replicas=2))

    with book.row(f"deploy interrupted at one of {TURNS * EVERY} task boundaries, then run again") as row:
        rerun = Rerun(lab, tmp_path, change)
        chosen = []
        for number, point in enumerate(rerun.points[part :: TURNS * EVERY], part + shift):
            possible = ways_at_a_step(rerun.ssh) if point.step else ways(rerun.ssh)
            chosen.append((point, possible[number % len(possible)]))
        _interrupt(row, rerun, chosen, nginx_ends=False)
        row.figure("boundaries", f"{part + 1}, {part + 1 + TURNS * EVERY}, … of {len(rerun.points)}")


def test_replacement_of_nginx_interrupted(lab: Lab, book: Book, tmp_path: Path) -> None:
    """It is interrupted after each step and in each way, above all while another nginx stands in."""
    with book.row("replacement of nginx interrupted after each of its steps, then run again") as row:
        rerun = Rerun(lab, tmp_path, lambda number: extra(stack_nginx_memory=f"{128 + number}m"))
        steps = [point for point in rerun.points if point.step]
        _interrupt(row, rerun, list(product(steps, ways_at_a_step(rerun.ssh))), nginx_ends=True)


def _interrupt(row: Row, rerun: Rerun, chosen: Sequence[tuple[Point, Interruption]], *, nginx_ends: bool) -> None:
    """Interrupt deploys under load, and record the outcome; an nginx that ends may close kept connections."""
    wrong: list[str] = []
    with rerun.lab.load(rate=RATE) as load:
        lost = 0
        for point, way in chosen:
            found = rerun.interrupt(point, way)
            report = load.report()
            failed = sum(report.failures().values()) - nginx_ends * report.resets_reused
            if failed > lost:
                found.append(f"{failed - lost} requests failed")
                lost = failed
            wrong += [f"{way.name} {point.name}: {one}" for one in found]
    allowed = None if nginx_ends else 0
    row.load(load.report(), get=allowed, post=allowed)
    row.most("interruptions after which something was wrong", len(wrong), 0)
    row.figure("kept connections closed between two requests", load.report().resets_reused)
    row.figure("interruptions", len(chosen))
    row.most("of which went to their end as if nothing had been", rerun.unnoticed, len(chosen) // 10)
    for number, one in enumerate(wrong, 1):
        row.figure(f"wrong {number}", one)


def test_races(lab: Lab, book: Book) -> None:
    """Both deploys succeed, one after the other, and the second is told whose the first is and since when it runs."""
    with book.row(f"two deploys at once, {RACES} races") as row:
        names, unclear, met, odd = ("jane", "john"), 0, 0, 0
        with lab.load(rate=RATE) as load, ThreadPoolExecutor(len(names)) as pool:
            for number in range(RACES):
                # One replica: the races are about who comes first, not about what that protects.
                runs = [
                    pool.submit(
                        play,
                        "deploy",
                        *extra(
                            stack_who=name,
                            stack_services=services(
                                Path("app"), replicas=1, cpus=str(0.5 + (number * len(names) + place) / 1000)
                            ),
                        ),
                    )
                    for place, name in enumerate(names)
                ]
                ended = dict(zip(names, [run.result() for run in runs], strict=True))
                audit = lab.host.check_output(f"tail --lines 2 {lab.stack.directory}/audit.log").splitlines()
                one_by_one = {line.partition(" live by ")[2] for line in audit} == set(names)
                if any(not run.ok for run in ended.values()) or not one_by_one or not lab.nginx_is_current():
                    odd += 1
                    row.figure(f"race {number + 1}", f"{audit}; {[_reason(run) for run in ended.values()]}")
                followers = [name for name, run in ended.items() if FOLLOWS in run.said]
                met += len(followers) == 1
                unclear += sum(
                    not re.search(rf"{FOLLOWS}: deploy \w+ by {other}, begun at 20", ended[name].said)
                    for name, other in (names, names[::-1])
                    if name in followers
                )
        row.load(load.report())
        row.most("races after which not both had worked", odd, 0)
        row.most("followers not told who and since when", unclear, 0)
        row.least("races in which one met the other's roll-out", met, 1)


def test_many_deploys(lab: Lab, book: Book, app: Path) -> None:
    """What grows a little with each deploy fills the machine in a year."""
    with book.row(f"{DEPLOYS} deploys in a row") as row:
        early: dict[str, float] = {}
        with lab.load(rate=RATE) as load:
            for number in range(1, DEPLOYS + 1):
                edit(app / "hello/templates/index.html", "from Flask", f"from Flask {number}")
                lab.deploy(app)
                if number == SETTLED:
                    early = lab.inside("counts", lab.stack.directory)
                    del early[BOUNDED]
        row.load(load.report())
        late = lab.inside("counts", lab.stack.directory)
        row.figure(f"{BOUNDED} of {DEPLOYS - SETTLED} deploys", late[BOUNDED])
        for name, count in early.items():
            row.most(f"growth from deploy {SETTLED} to {DEPLOYS}: {name}", late[name] - count, GROWTH.get(name, 0))
            row.figure(f"after deploy {DEPLOYS}: {name}", late[name])
