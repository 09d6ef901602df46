"""Deploys that are interrupted, that meet each other, and many of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from tests.faults.interruption import Interruption, Point, Ssh, points, ways
from tests.faults.lab import Lab, Run, extra, play
from tests.faults.rows import Book, Row
from tests.live_app import edit, services

EVERY = int(os.environ.get("FAULTS_EVERY", "1"))
"""To try these tests out: only every so many of what they repeat, under another name in the table."""
TURN = int(os.environ.get("FAULTS_TURN", "0"))
TURNS = 3
"""Turns until every boundary was interrupted, each in one way; as many times that, as there are ways, until in all."""
RACES = 20 // EVERY
TOLD_WITHIN_S = 5
DEPLOYS = 30 // EVERY
SETTLED = 10 // EVERY
"""Number of the deploy after which nothing may grow any more: more than the releases that are kept."""
RATE = 40
"""Requests per second: enough to notice every gap, and most of the CPU is left to hundreds of deploys."""
GROWTH = {"disk (MiB)": 5, "memory of nginx (MiB)": 2, "memory of dockerd (MiB)": 30, "open files of dockerd": 4}
"""What may be so much more after twenty deploys without being a leak; everything else: not at all."""
BOUNDED = "build cache (MiB)"
"""Grows up to ``defaultKeepStorage`` in ``docker_daemon_options``; counting the rest empties it."""


class Rerun:
    """A deploy that was interrupted, and the one that comes after it."""

    def __init__(self, lab: Lab, folder: Path, change: Callable[[int], list[str]]) -> None:
        """Note how a machine looks on which nothing was interrupted.

        Args:
            lab: The instance.
            folder: For logs.
            change: Makes the version of a number; returns the arguments that deploy it.
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
        """Interrupt a deploy, run it again, and look.

        Args:
            point: Where.
            way: How.

        Returns:
            What was not as it should be.
        """
        log, arguments = self._new_version()
        with self.ssh.mended():
            self.unnoticed += way.run(point, log, arguments) == 0
        again = play("deploy", *arguments)
        wrong = []
        if again.status != 0:
            wrong.append(f"the rerun fails: {_reason(again)}")
            self.lab.settle()
            assert play("deploy", *arguments).status == 0
        elif len(self.lab.ids()) != len(self.replicas) or not self.lab.nginx_is_current():
            wrong.append("the rerun does not converge")
        left = self.lab.leftovers()
        wrong += [f"left behind, {name}: {left[name]}" for name in left if left[name] != self.clean[name]]
        return wrong


def _reason(run: Run) -> str:
    lines = [line.strip() for line in run.output.splitlines() if "msg:" in line or "ERROR" in line]
    return lines[0][:200] if lines else f"status {run.status}"


def test_interrupted_at_every_boundary(lab: Lab, book: Book, app: Path, tmp_path: Path) -> None:
    """Three runs with $FAULTS_TURN 0, 1 and 2 interrupt at every boundary, nine in each of the three ways."""
    part, shift = TURN % TURNS, TURN // TURNS

    def change(number: int) -> list[str]:
        edit(app / "hello/templates/index.html", "from Flask", f"from Flask {number}")
        # Two are enough to be replaced one by one, and take less time than three.
        return extra(stack_services=services(app, replicas=2))

    with book.row(f"deploy interrupted at one of {TURNS * EVERY} task boundaries, then run again") as row:
        rerun = Rerun(lab, tmp_path, change)
        all_ways, chosen = ways(rerun.ssh), rerun.points[part :: TURNS * EVERY]
        _interrupt(
            row,
            rerun,
            [(point, all_ways[(number + part + shift) % len(all_ways)]) for number, point in enumerate(chosen)],
            nginx_ends=False,
        )
        row.figure("boundaries", f"{part + 1}, {part + 1 + TURNS * EVERY}, … of {len(rerun.points)}")


def test_replacement_of_nginx_interrupted(lab: Lab, book: Book, tmp_path: Path) -> None:
    """After each step of it, in each way; most of all while another one stands in."""
    with book.row("replacement of nginx interrupted after each of its steps, then run again") as row:
        rerun = Rerun(lab, tmp_path, lambda number: extra(stack_nginx_memory=f"{128 + number}m"))
        steps = [point for point in rerun.points if point.step]
        _interrupt(row, rerun, list(product(steps, ways(rerun.ssh))), nginx_ends=True)


def _interrupt(row: Row, rerun: Rerun, chosen: Sequence[tuple[Point, Interruption]], *, nginx_ends: bool) -> None:
    """Interrupt deploys under load, and note what became of it; an nginx that ends may close kept connections."""
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
    """Exactly one wins; the other is soon told who is there, where from and since when."""
    with book.row(f"two deploys at once, {RACES} races") as row:
        names, slowest, unclear, odd = ("jane", "john"), 0.0, 0, 0
        with lab.load(rate=RATE) as load, ThreadPoolExecutor(len(names)) as pool:
            for number in range(RACES):
                # One replica: the races are about the lock, not about what it protects.
                runs = [
                    pool.submit(
                        play,
                        "deploy",
                        *extra(
                            stack_services=services(
                                Path("app"), replicas=1, cpus=str(0.5 + (number * len(names) + place) / 1000)
                            )
                        ),
                        USER=name,
                    )
                    for place, name in enumerate(names)
                ]
                ended = dict(zip(names, [run.result() for run in runs], strict=True))
                won = [name for name, run in ended.items() if run.status == 0]
                if len(won) != 1:
                    odd += 1
                    row.figure(f"race {number + 1}", f"won: {won}; {[_reason(run) for run in ended.values()]}")
                    continue
                (loser,) = (run for name, run in ended.items() if name != won[0])
                slowest = max(slowest, loser.seconds)
                unclear += not all(word in loser.output for word in (won[0], socket.gethostname(), "since"))
        row.load(load.report())
        row.most("races without exactly one winner", odd, 0)
        row.most("losers not told who, where and since when", unclear, 0)
        row.most("slowest refusal, from the start of the run (s)", slowest, TOLD_WITHIN_S)


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
