"""Replicas that die, hang, lose their network, or use up resources."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from bench.faults.inside import NEVER_S
from bench.faults.lab import Lab, play
from bench.faults.rows import Book
from bench.load import Report
from bench.stack import CLIENTS

CALM_S = 3
"""Seconds of load before the fault."""
FROZEN_S = 15
CUT_S = 8
HELD_S = 8
"""More than the 5 s after which containerd, as Debian sets it up, gives up to clear away a container without a shim."""
SHIMS = {
    "SIGKILL of a replica's containerd-shim": ("app", 0),
    f"SIGKILL of a replica's containerd-shim, cleared away {HELD_S} s late": ("app", HELD_S),
    "SIGKILL of nginx's containerd-shim": ("nginx", 0),
}
"""By event: the service whose shim is killed, and the seconds for which the cleanup of its container is held up."""
BITE = (
    "import os, urllib.request as u; "
    "u.urlopen(u.Request('http://127.0.0.1:' + os.environ['PORT'] + '/fault/{}', method='POST'), timeout=40)"
)
PIDS_LIMIT = 100
BOMB_AT_LEAST = 20


def test_killed_process(lab: Lab, book: Book) -> None:
    """A server's process ends in a crash, or because the kernel chooses it when memory is short."""
    with book.row("SIGKILL of a replica's process") as row:
        with lab.load() as load:
            time.sleep(CALM_S)
            found = lab.inside("kill", lab.ids()[0])
        # One request at most is in flight for each client.
        row.load(load.report(), post=CLIENTS)
        row.figure("out of the balancer after (s)", found["out"])
        row.figure("ready again after (s)", found["back"])


@pytest.mark.parametrize("event", SHIMS)
def test_killed_shim(lab: Lab, book: Book, event: str) -> None:
    """The shim stands between containerd and a container; without it nobody would notice that the container ends."""
    service, held_s = SHIMS[event]
    with book.row(event) as row:
        before = lab.ids()
        (victim, *_) = lab.stack.containers(service)
        with lab.load() as load:
            time.sleep(CALM_S)
            found = lab.inside("kill_shim", victim.id, str(held_s))
        if service == "app":
            row.load(load.report(), post=CLIENTS)
        else:
            # There is nobody else to answer.
            row.load(load.report(), get=None, post=None)
        row.holds("what clears away was held up, if it should be", bool(found["held"]) == bool(held_s))
        row.holds("started again and healthy", found["back"] < NEVER_S)
        row.figure("started again and healthy after (s)", found["back"])
        row.most("old processes left", found["left"], 0)
        row.holds("all replicas serve", set(lab.stack.ask(30)) == set(before) == set(lab.ids()))


def _failed(report: Report) -> int:
    return sum(report.failures().values())


def test_frozen_replica(lab: Lab, book: Book) -> None:
    """A frozen replica accepts connections and never answers, so only a request can tell that it is ill."""
    with book.row("replica frozen (SIGSTOP), then thawed") as row:
        with lab.load(seconds=FROZEN_S + 15) as load:
            time.sleep(CALM_S)
            found = lab.inside("freeze", lab.ids()[0], str(FROZEN_S))
        row.load(load.report(), get=None, post=None)
        row.most("failed requests in all, at most those in flight", _failed(load.report()), CLIENTS)
        row.most("out of the balancer after (s)", found["out"], 3)
        row.most("back after thawing (s)", found["back"], 5)


def test_replica_that_stays_frozen(lab: Lab, book: Book) -> None:
    """At night nobody is there to restart a frozen replica, so the machine has to do it."""
    with book.row("replica frozen (SIGSTOP) for good") as row:
        victim = lab.ids()[0]
        with lab.load(seconds=45) as load:
            time.sleep(CALM_S)
            found = lab.inside("freeze_for_good", victim, "60")
        row.load(load.report(), get=None, post=None)
        row.most("failed requests in all, at most those in flight", _failed(load.report()), CLIENTS)
        row.most("as many ready as before after (s)", found["replaced"], 30)


def test_all_restarted_at_once(lab: Lab, book: Book) -> None:
    """No replica is left to take over; what counts is how soon the outage is over."""
    with book.row("all replicas restarted at once") as row:
        ids = lab.ids()
        with lab.load(seconds=40) as load:
            time.sleep(CALM_S)
            healthy = lab.inside("restart_all")["first healthy"]
        report = load.report()
        row.load(report, get=None, post=None)
        failed = [one.second for one in report.seconds if one.failed]
        row.figure("seconds in which requests failed", len(failed))
        row.holds("all serve again", set(lab.stack.ask(30)) == set(ids))
        row.holds("the time of the first healthy one is known", healthy > 0)
        recovered = report.started + report.longest_gap_at + report.longest_gap
        row.most("answers after the first is healthy (s)", recovered - healthy if failed else 0, 2)
        last = max(failed) + 1 + report.started - healthy if failed else 0
        row.most("no failure any more after the first is healthy (s)", last, 2)


def test_cut_network(lab: Lab, book: Book) -> None:
    """Packets are dropped and not refused, so nothing tells nginx that the replica is gone."""
    with book.row("network cut to one replica (docker network disconnect), then back") as row:
        victim = lab.ids()[0]
        (network,) = lab.stack.inspect("app")[0]["NetworkSettings"]["Networks"]
        with lab.load(seconds=30) as load:
            time.sleep(CALM_S)
            lab.host.check_output(f"docker network disconnect {network} {victim}")
            time.sleep(CUT_S)
            lab.host.check_output(f"docker network connect --alias app {network} {victim}")
            lab.stack.wait_for("it takes its share again", lambda: victim in lab.stack.ask(30))
        row.load(load.report())
        row.most("p99 (s)", load.report().latency.p99, 1.2)


def _seen(name: str) -> Sequence[str]:
    """Return a replica's health, readiness and restarts as status.yml shows them, and whether its memory ran out."""
    lines = [line.split() for line in play("status").said.splitlines()]
    (found,) = [line for line in lines if line[:1] == [name]]
    return [*found[1:4], *(word for word in found if word == "RAN")]


@pytest.mark.parametrize("fault", ["oom", "bomb"])
def test_greedy_replica(faulty: Lab, book: Book, fault: str) -> None:
    """One replica's limits protect all others."""
    event = {"oom": "a replica out of memory", "bomb": "a fork bomb in a replica"}[fault]
    with book.row(event) as row:
        victim, *others = faulty.stack.containers("app")
        before, clean = faulty.stack.inspect("app"), _seen(victim.name)
        bite = f'docker exec {victim.id} python -c "{BITE.format(fault)}"'
        with faulty.load(seconds=30) as load:
            time.sleep(CALM_S)
            faulty.host.run(f"({bite}) > /dev/null 2>&1 & sleep 3")
            processes = int(faulty.host.check_output(f"docker top {victim.id} -eo pid | wc -l"))
            if fault == "oom":
                row.least(
                    "its processes ended by the kernel", faulty.inside("killed_for_memory", victim.id)["killed"], 1
                )
            else:
                row.least("processes in it, to be a bomb", processes, BOMB_AT_LEAST)
            noticed = _seen(victim.name)
        after = {one["Id"]: one for one in faulty.stack.inspect("app")}
        # What the victim had in flight dies with it; GETs are sent to another one.
        row.load(load.report(), post=CLIENTS)
        untouched = [one for one in before if not one["Id"].startswith(victim.id)]
        row.holds(
            "the others go on untouched",
            len(untouched) == len(others)
            and all(after[one["Id"]]["State"]["StartedAt"] == one["State"]["StartedAt"] for one in untouched),
        )
        row.most("processes in it", processes, PIDS_LIMIT)
        row.figure("health, ready, restarts, memory in status.yml", f"{' '.join(clean)}, then {' '.join(noticed)}")
        row.holds("visible in status.yml", noticed != clean)
        victim_again = f"docker inspect {victim.id} > /dev/null"
        row.holds("it serves again", faulty.host.run(victim_again).rc != 0 or victim.id in faulty.stack.ask(60))
