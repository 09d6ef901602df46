"""A missed goal and a run that ended early fail and are shown, and the page says what the files say."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from bench.faults.rows import Book, read
from bench.faults.table import page, worst
from bench.load import Report
from bench.load.report import Example, Method
from tests.project import ROOT

KEPT_RUNS = 3


def _report(failed: int, *, planned: int = 100) -> Report:
    report = Report("http://127.0.0.1/whoami", rate=100, clients=8, timeout=10)
    lost = {"reset": failed} if failed else {}
    report.methods = {"GET": Method(50, 50, {}), "POST": Method(50, 50 - failed, lost)}
    report.planned, report.sent = planned, 100
    return report


def test_a_row_that_meets_its_goals_passes_and_is_kept(tmp_path: Path) -> None:
    """The row is read again as it was written."""
    book = Book(tmp_path / "new" / "run.jsonl")
    book.begin({"kernel": "6.1"})
    with book.row("stop") as row:
        row.load(_report(0))
        row.least("ratio", 1.8, 1.8)
        row.holds("it serves", [1])
        row.figure("p99 (ms)", 12.34567)
    machine, rows = read(book.path)
    assert machine == {"kernel": "6.1"}
    assert rows["stop"].misses() == []
    assert rows["stop"].figures["p99 (ms)"] == 12.35
    assert [goal.met for goal in rows["stop"].goals] == [True] * 5


@pytest.mark.parametrize(("failed", "planned"), [(1, 100), (0, 101)], ids=["a failed one", "one that was never sent"])
def test_one_lost_request_is_a_miss(tmp_path: Path, failed: int, planned: int) -> None:
    """A row that misses its goal is written all the same, and fails its test."""
    book = Book(tmp_path / "run.jsonl")
    with pytest.raises(AssertionError, match="goal 0"), book.row("stop") as row:
        row.load(_report(failed, planned=planned))
    assert len(read(book.path)[1]["stop"].misses()) == 1


def test_a_row_says_what_happened_to_a_lost_request(tmp_path: Path) -> None:
    """Its containers and their logs are gone when somebody asks; where failures are allowed, nobody does."""
    report, book = _report(1), Book(tmp_path / "run.jsonl")
    report.examples = [Example(12.34, "POST", "reset", "closed by the server, new connection")]
    with book.row("kill") as row:
        row.load(report, post=1)
    with suppress(AssertionError), book.row("stop") as row:
        row.load(report)
    rows = read(book.path)[1]
    assert rows["stop"].figures["failure 1"] == "POST after 12.3 s: reset, closed by the server, new connection"
    assert "failure 1" not in rows["kill"].figures


def test_a_row_that_ended_early_is_a_miss_on_the_page(tmp_path: Path) -> None:
    """A missing figure must not look like a good one."""
    book = Book(tmp_path / "run.jsonl")
    with suppress(OSError), book.row("reboot") as row:
        row.most("seconds", 1, 2)
        raise OSError("no way in")
    assert "| reboot | seconds | ≤ 2 | 1 | 1 | met |" in page([book.path])
    assert "run 1 ended early: OSError: no way in" in page([book.path])
    assert "1 missed" in page([book.path])


def test_the_page_shows_all_runs_and_the_worst(tmp_path: Path) -> None:
    """One good run of three proves nothing."""
    paths = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    for path, failed in zip(paths, (0, 2), strict=True):
        with suppress(AssertionError), Book(path).row("kill") as row:
            row.most("failed POST", failed, 1)
            row.least("ratio", 2.5 - failed, 1.8)
            row.holds("it serves", failed == 0)
    rendered = page(paths)
    assert "| kill | failed POST | ≤ 1 | 0 | 2 | 2 | **missed** |" in rendered
    assert "|  | ratio | ≥ 1.8 | 2.5 | 0.5 | 0.5 | **missed** |" in rendered
    assert "|  | it serves | yes | yes | **no** | **no** | **missed** |" in rendered


def test_an_event_that_was_measured_again_counts_once(tmp_path: Path) -> None:
    """A row that missed its goal could never be repaired otherwise."""
    book = Book(tmp_path / "run.jsonl")
    for _ in range(2):
        with book.row("stop") as row:
            row.most("failed GET", 0, 0)
    assert page([book.path]).count("failed GET") == 1


@pytest.mark.parametrize(("limit", "expected"), [("0", 3), ("≥ 1.8", 1), ("yes", 1)])
def test_worst_is_the_farthest_from_the_goal(limit: str, expected: int) -> None:
    """For some goals that is the smallest figure."""
    assert worst([1, 3, 2], limit) == expected


def test_the_page_in_docs_says_what_was_measured() -> None:
    """Nothing on the page is typed by hand."""
    runs = sorted((ROOT / "docs/faults").glob("*.jsonl"))
    assert runs
    assert (ROOT / "docs/faults.md").read_text() == page(runs)


def test_no_row_is_kept_from_more_than_three_runs() -> None:
    """People read the page; runs older than the three newest of a row are in the history."""
    kept = Counter(event for run in (ROOT / "docs/faults").glob("*.jsonl") for event in read(run)[1])
    assert kept.most_common(1)[0][1] == KEPT_RUNS
