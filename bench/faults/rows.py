"""Rows of the table of faults: what was measured during an event, and whether it meets its goals."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.load import Report

Figure = float | int | str | bool


@dataclass
class Goal:
    """One thing that was measured against a limit.

    Attributes:
        what: What was measured, with its unit.
        limit: The goal as the table shows it, such as ``≤ 5``, ``0`` or ``yes``.
    """

    what: str
    limit: str
    measured: Figure
    met: bool


@dataclass
class Row:
    """One event of the table, with all that was measured.

    Attributes:
        event: What happened, as the table names it.
        started: Unix time.
        figures: What was measured without a goal, by its name with the unit.
        error: Why the row has no full result; empty when it has.
    """

    event: str
    started: float = field(default_factory=time.time)
    seconds: float = 0.0
    goals: list[Goal] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    error: str = ""

    def most(self, what: str, measured: float, limit: float) -> None:
        """Add a goal: a figure must be at most ``limit``. ``what`` names it, with its unit."""
        self.goals.append(Goal(what, f"≤ {limit:g}" if limit else "0", _short(measured), measured <= limit))

    def least(self, what: str, measured: float, limit: float) -> None:
        """Add a goal: a figure must be at least ``limit``. ``what`` names it, with its unit."""
        self.goals.append(Goal(what, f"≥ {limit:g}", _short(measured), measured >= limit))

    def holds(self, what: str, truth: object) -> None:
        """Add a goal: something must be true."""
        self.goals.append(Goal(what, "yes", bool(truth), bool(truth)))

    def figure(self, what: str, measured: Figure) -> None:
        """Add a figure that has no goal. ``what`` names it, with its unit."""
        self.figures[what] = _short(measured) if isinstance(measured, float) else measured

    def load(self, report: Report, *, get: int | None = 0, post: int | None = 0) -> None:
        """Add the outcome of a load: its failures, its latency, and that every request was sent.

        ``get`` and ``post`` are how many requests of each method may fail; with None any number may.
        """
        for method, most in (("GET", get), ("POST", post)):
            lost = sum(report.failures(method).values())
            if most is None:
                self.figure(f"failed {method}", lost)
            else:
                self.most(f"failed {method}", lost, most)
        self.all_sent(report)
        self.figure("requests", report.planned)
        self.figure("of which over a new connection each", report.new_connections.sent)
        self.figure("kinds of failure", json.dumps(report.failures(), sort_keys=True) if report.failures() else "none")
        for number, one in enumerate(report.examples if self.misses() else (), 1):
            self.figure(f"failure {number}", f"{one.method} after {one.second:.1f} s: {one.kind}, {one.detail}")
        self.figure("p99 (ms)", report.latency.p99 * 1000)
        self.figure("longest gap (s)", report.longest_gap)

    def all_sent(self, report: Report) -> None:
        """Add a goal: all requests were sent. One that was not sent has no outcome and would pass for a success."""
        self.most("requests due but not sent", report.planned - report.sent, 0)

    def misses(self) -> list[str]:
        """Write one line for each goal that was missed."""
        return [f"{goal.what}: {goal.measured}, goal {goal.limit}" for goal in self.goals if not goal.met]


def _short(measured: float) -> float:
    """Round a figure to four digits, because more would be noise."""
    if isinstance(measured, int) or not math.isfinite(measured):
        return measured if isinstance(measured, int) else -1.0
    return float(f"{measured:.4g}")


@dataclass
class Book:
    """The results of one run: a file with one line of JSON for the machine, then one for each row.

    Rows are appended, so that an interrupted run keeps what it has.
    """

    path: Path

    def begin(self, machine: dict[str, Any]) -> None:
        """Write the machine's facts, unless the file exists already."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"machine": machine})

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    @contextmanager
    def row(self, event: str) -> Iterator[Row]:
        """Measure one event, which the block fills the row with.

        The row is written even if the block fails. An AssertionError then says which goals were missed.
        """
        row = Row(event)
        # Figures of a busy machine are about the machine.
        row.figure("processes waiting for a CPU of the controller at the start", os.getloadavg()[0])
        try:
            yield row
        except BaseException as error:
            row.error = f"{type(error).__name__}: {str(error).strip()[-500:]}"
            raise
        finally:
            row.seconds = round(time.time() - row.started, 1)
            self._append(asdict(row))
        assert not row.misses(), row.misses()


def read(path: Path) -> tuple[dict[str, Any], dict[str, Row]]:
    """Read the machine's facts and the rows by event from the results of one run.

    Of an event that was measured twice the later row counts.
    """
    machine: dict[str, Any] = {}
    rows: dict[str, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "machine" in entry:
            machine = entry["machine"]
        else:
            entry["goals"] = [Goal(**goal) for goal in entry["goals"]]
            rows[entry["event"]] = Row(**entry)
    return machine, rows
