"""Renders the results of some runs as a page: ``python -m bench.faults.table RUN.jsonl… > docs/faults.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.faults.rows import Figure, Row, read

HEAD = """\
# What was measured under faults

Made by `python -m bench.faults.table docs/faults/*.jsonl`; how to repeat it: [testing.md](testing.md). Each event
happens while 8 clients send GET and POST, half and half, for at least 20 seconds, at a constant rate that does not
wait for answers. 4 of them open a connection for each request, the others keep theirs; in older runs, which have no
figure for requests over new connections, all kept theirs. Where two sides are compared, 12 clients ask each in turn,
as fast as they are answered. A request counts as failed when its answer is 500 or above or 429, or when it is reset,
refused or not answered within 10 seconds.
"""


def text(figure: Figure | None) -> str:
    """Write a figure as a cell of a table; None is a run that has none."""
    if figure is None:
        return "-"
    if isinstance(figure, bool):
        return "yes" if figure else "**no**"
    return f"{figure:g}" if isinstance(figure, float) else str(figure).replace("|", "/")


def worst(figures: Iterable[Figure], limit: str) -> Figure:
    """Choose the figure that is farthest from its goal.

    ``figures`` holds one for each run, at least one; ``limit`` is the goal, as a row has it. It is the largest figure,
    or the smallest when the goal is a lower bound or a truth.
    """
    found = list(figures)
    return min(found, key=float) if limit.startswith(("≥", "yes")) else max(found, key=float)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def goal_rows(event: str, runs: Sequence[Row | None]) -> list[list[str]]:
    """Write the cells for the goals of one event, a row for each; a run that did not measure the event is None."""
    measured: dict[tuple[str, str], list[Figure | None]] = {}
    for number, row in enumerate(runs):
        for goal in row.goals if row else ():
            measured.setdefault((goal.what, goal.limit), [None] * len(runs))[number] = goal.measured
    missed = {goal.what for row in runs if row for goal in row.goals if not goal.met}
    rows = []
    for (what, limit), figures in measured.items():
        known = [figure for figure in figures if figure is not None]
        outcome = "**missed**" if what in missed else "met"
        rows.append(["", what, limit, *map(text, figures), text(worst(known, limit)), outcome])
    for number, row in enumerate(runs, 1):
        if row and row.error:
            reason = row.error.replace("\n", " ").replace("|", "/")[:200]
            rows.append(["", f"run {number} ended early: {reason}", "", *[""] * len(runs), "", "**missed**"])
    if rows:
        rows[0][0] = event
    return rows


def figure_rows(event: str, runs: Sequence[Row | None]) -> list[list[str]]:
    """Write the cells for the figures without a goal, a row for each; a run that did not measure the event is None."""
    names = dict.fromkeys(name for row in runs if row for name in row.figures)
    rows = [["", name, *(text(row.figures.get(name) if row else None) for row in runs)] for name in names]
    if rows:
        rows[0][0] = event
    return rows


def page(paths: Sequence[Path]) -> str:
    """Render the page in Markdown from the results, one file for each run."""
    books = [read(path) for path in paths]
    events = list(dict.fromkeys(event for _, rows in books for event in rows))
    columns = [f"run {number}" for number in range(1, len(books) + 1)]
    parts = [HEAD]
    for number, (machine, rows) in enumerate(books, 1):
        started = min((row.started for row in rows.values()), default=0.0)
        when = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC")
        facts = "; ".join(f"{name} {value}" for name, value in machine.items())
        parts.append(f"- run {number}: {when}; {facts}")
    goals = [line for event in events for line in goal_rows(event, [rows.get(event) for _, rows in books])]
    missed = sum(line[-1] != "met" for line in goals)
    parts.append(f"\n## Goals\n\n{len(events)} events, {len(goals)} goals, {missed} missed.\n")
    parts.append(table(["event", "measured", "goal", *columns, "worst", ""], goals))
    figures = [line for event in events for line in figure_rows(event, [rows.get(event) for _, rows in books])]
    parts.append("## Figures without a goal\n")
    parts.append(table(["event", "measured", *columns], figures))
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page([Path(name) for name in sys.argv[1:]]))
