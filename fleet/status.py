"""What runs, for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.engine.base import NGINX, Replica
from fleet.job import Jobs
from fleet.stack import Stack

HEAD = ("replica", "health", "ready", "restarts", "CPU", "memory", "requests", "share", "id")


def status(stack: Stack, jobs: Jobs) -> dict[str, Any]:
    """Tell what runs: ``live``, ``job`` and ``replicas`` for a program, and the same for a person as ``text``."""
    view, used, job = stack.inspect(None), stack.engine.usage(), jobs.progress()
    live = stack.releases.live()
    known = next((one for one in stack.releases.kept() if one.id == live), None)
    rows: list[Sequence[str]] = [HEAD]
    listed = []
    for name, service in sorted(view.state.services.items()):
        total = sum(one.served for one in service.replicas)
        for one in sorted(service.replicas, key=lambda replica: replica.name):
            rows.append(_row(one, used.get(one.name, ("-", "-")), total))
            listed.append({"name": one.name, "id": one.id, "service": name, "ready": one.ready, "health": one.health})
    when = f"{known.activated} UTC, by {known.by}" if known else "?"
    head = [f"release {live}, live since {when}"]
    if not job.ended:
        head.append(f"under way: {job.describe()}")
    elif job.was_killed:
        head.append(f"killed before its end: {job.describe()}; the next deploy ends it")
    return {
        "changed": False,
        "live": live,
        "job": "" if job.ended else job.describe(),
        "replicas": listed,
        "text": "\n".join([*head, "", *_table(rows)]),
    }


def _row(one: Replica, used: tuple[str, str], total: int) -> tuple[str, ...]:
    cpu, memory = used
    # The engine goes on calling it healthy: a server that has several processes starts the ended one anew.
    memory += ", RAN OUT" if one.out_of_memory else ""
    if one.service == NGINX:
        return (one.name, one.health, "-", str(one.restarts), cpu, memory, "-", "-", one.id)
    share = f"{one.served / total:.1%}" if total else "-"
    ready = "yes" if one.ready else "NO"
    return (one.name, one.health, ready, str(one.restarts), cpu, memory, str(one.served), share, one.id)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
