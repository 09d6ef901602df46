"""What people do to a stack that serves: deploy, scale, go back, stop a replica, change nginx."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.app import edit, services
from bench.faults.lab import Lab, extra, play
from bench.faults.rows import Book

PATIENCE_S = 10
"""Seconds that a version gets to become healthy; the shipped 60 s would only make the run longer."""

BROKEN: dict[str, Callable[[Path], None]] = {
    "does not build": lambda app: edit(app / "Dockerfile", "USER 10001", "RUN false\nUSER 10001"),
    "crashes": lambda app: edit(app / "wsgi.py", "app = create_app()", 'raise SystemExit("no database")'),
    "is never healthy": lambda app: edit(
        app / "Dockerfile",
        "USER 10001",
        'USER 10001\nHEALTHCHECK CMD ["healthy", "/nowhere"]',
    ),
    "answers 500 on readiness": lambda app: edit(
        app / "hello/views.py", "return jsonify(ready=True)", "return jsonify(ready=1 / 0)"
    ),
}


def test_rolling_deploy(lab: Lab, book: Book, app: Path) -> None:
    """A deploy without a lost request is what the project is for."""
    with book.row("rolling deploy of a new version, three in a row") as row:
        with lab.load() as rest:
            pass
        runs = []
        with lab.load() as load:
            for number in range(3):
                edit(app / "hello/templates/index.html", "from Flask", f"from Flask {number}")
                runs.append(lab.deploy(app))
        row.load(load.report())
        row.figure("p99 at rest (ms)", rest.report().latency.p99 * 1000)
        row.figure("p99 during the deploys ÷ at rest", load.report().latency.p99 / rest.report().latency.p99)
        longest = max(runs, key=lambda run: run.seconds)
        row.figure("longest deploy (s)", longest.seconds)
        for name, seconds in longest.task_seconds().items():
            row.figure(f"of which: {name} (s)", seconds)
        said = [line.strip().partition(": ")[2] for line in longest.said.splitlines() if line.startswith("  i-")]
        row.figure("its steps", "; ".join(said))


def test_scaling_by_playbook(lab: Lab, book: Book) -> None:
    """People scale up before a busy hour and down after it."""
    with book.row("scale 2 → 5 → 1 → 3 by playbook") as row:
        assert play("scale", *extra(app=2)).ok
        with lab.load() as load:
            for number in (5, 1, 3):
                run = play("scale", *extra(app=number))
                row.holds(f"{number} replicas then", run.ok and len(lab.ids()) == number)
        row.load(load.report())


def test_scaling_by_hand(lab: Lab, book: Book) -> None:
    """Somebody on the machine scales with nothing but Compose."""
    with book.row("scale 2 → 5 → 1 → 3 by hand, docker compose up -d --scale") as row:
        scale = f"cd {lab.stack.directory} && docker compose up -d --scale app="
        lab.host.check_output(f"{scale}2")
        with lab.load() as load:
            for number in (5, 1, 3):
                lab.host.check_output(f"{scale}{number}")
                row.holds(f"{number} replicas then", len(lab.ids()) == number)
        row.load(load.report())


def test_rollback(lab: Lab, book: Book, app: Path) -> None:
    """The way back has to be as safe as the way forward."""
    with book.row("rollback") as row:
        edit(app / "hello/templates/index.html", "from Flask", "from a mistake")
        before = lab.live()
        lab.deploy(app)
        with lab.load() as load:
            run = play("rollback")
        row.load(load.report())
        row.holds("the release before is live", run.ok and lab.live() == before)
        row.figure("duration (s)", run.seconds)


def test_stop_of_a_replica(lab: Lab, book: Book) -> None:
    """A stopped replica tells nginx beforehand that it will end."""
    with book.row("docker stop of a replica") as row:
        victim = lab.ids()[0]
        with lab.load() as load:
            lab.host.check_output(f"docker stop {victim}")
        row.load(load.report())


@pytest.mark.parametrize("how", BROKEN)
def test_broken_version(lab: Lab, book: Book, app: Path, how: str) -> None:
    """People deploy mistakes: the run fails and says why, and nobody else notices."""
    with book.row(f"broken version deployed: {how}") as row:
        before, left = lab.ids(), lab.leftovers()
        BROKEN[how](app)
        with lab.load() as load:
            run = play("deploy", *extra(stack_services=services(app), stack_start_seconds=PATIENCE_S))
        row.load(load.report())
        row.holds("the run fails", not run.ok)
        row.holds("the old replicas serve, all of them", lab.ids() == before and set(lab.stack.ask(30)) == set(before))
        after = lab.leftovers()
        row.holds("nothing is left behind", after == left)
        if after != left:
            row.figure("left behind", str({name: after[name] for name in after if after[name] != left[name]}))
        row.figure("duration (s)", run.seconds)


def test_change_of_nginx(lab: Lab, book: Book) -> None:
    """A reload closes connections, so nginx asks its clients beforehand to open new ones."""
    with book.row("nginx configuration changed and reloaded") as row:
        with lab.load() as load:
            for seconds in (41, 42, 43):
                run = play("deploy", *extra(stack_retry_after_seconds=seconds))
                row.holds("it runs with the new configuration", run.ok and lab.nginx_is_current())
        row.load(load.report())


def test_replacement_of_nginx(lab: Lab, book: Book) -> None:
    """Another image of nginx, or another setting that Compose cannot change in a running container, loses nothing."""
    with book.row("nginx itself replaced, three in a row") as row:
        runs = []
        with lab.load() as load:
            for mib in (129, 130, 131):
                (before,) = lab.stack.containers("nginx")
                runs.append(play("deploy", *extra(stack_nginx_memory=f"{mib}m")))
                (after,) = lab.stack.containers("nginx")
                row.holds("it is another one", runs[-1].ok and after.id != before.id)
        row.load(load.report())
        row.figure("longest deploy (s)", max(run.seconds for run in runs))


def test_new_base(lab: Lab, book: Book) -> None:
    """A security update of the base image replaces nginx, Python and every app."""
    with book.row("all images made anew from today's packages") as row:
        before = {one["Image"] for name in ("nginx", "app") for one in lab.stack.inspect(name)}
        with lab.load() as load:
            run = play("deploy", *extra(image_base_revision=str(time.time())))
        after = {one["Image"] for name in ("nginx", "app") for one in lab.stack.inspect(name)}
        row.holds("nginx and the app are others", run.ok and not before & after)
        row.load(load.report())
        row.figure("from the command to all replicas and nginx live (s)", run.seconds)
        for name, seconds in run.task_seconds().items():
            row.figure(f"of which: {name} (s)", seconds)
