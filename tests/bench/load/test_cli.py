"""The command line of the load generator, as a person and a script use it."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import cli
from bench.load.report import Report
from tests.bench.load import server as rogue
from tests.bench.load.server import Server, answer, serving
from tests.bench.load.test_outcomes import check_sums
from tests.project import ROOT


@contextlib.contextmanager
def command(server: Server, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the command line until some requests have arrived."""
    arguments = [sys.executable, "-m", "bench.load", server.url, *options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        deadline = time.monotonic() + 20
        while len(server.requests) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_load_and_still_reports(number: signal.Signals) -> None:
    """The report has every request that was due."""
    with serving() as server, command(server, "--rate", "50", "--json", "-") as process:
        process.send_signal(number)
        output, complaints = process.communicate(timeout=20)
        report = Report.from_json(output)
        assert report.sent == len(server.requests)
    check_sums(report)
    assert report.ok == report.planned >= 5
    assert complaints == ""
    assert process.returncode == 0


def test_second_signal_does_not_wait() -> None:
    """A person who presses Ctrl-C twice has waited long enough; the report says how much is unknown."""
    with serving(silent=rogue.never) as server, command(server, "--timeout", "60") as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert f"in flight {len(server.requests)}" in output
    assert process.returncode == 1


def test_report_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has sums, methods, latencies, the gap and who answered; the same is in a file as JSON."""
    file = tmp_path / "report.json"
    options = ["--rate", "100", "--seconds", "0.2", "--method", "GET:0.5,POST:0.5", "--json", str(file)]
    options += ["--clients", "2", "--reconnecting", "2"]
    with serving(ok=answer(), busy=answer(503)) as server:
        assert cli.main([server.url, *options]) == 1
    shown = capsys.readouterr().out
    report = Report.from_json(file.read_text())
    check_sums(report)
    assert "planned 20, sent 20, ok 10, failed status_503: 10\n" in shown
    assert f"  POST: sent {report.methods['POST'].sent}, ok {report.methods['POST'].ok}, failed status_503: " in shown
    assert "  over a new connection each: sent 20, ok 10, failed status_503: 10\n" in shown
    assert "p99.9 " in shown
    assert re.search(r"container c0ffee: 20 answers, second \d+\.\d to \d+\.\d\n", shown)
    assert "release r1: 20 answers" in shown
    assert "due in second 0: ok 10, failed status_503: 10" in shown


def test_all_ok_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    """A script can rely on it."""
    with serving() as server:
        assert cli.main([server.url, "--seconds", "0.1"]) == 0
    assert "failed none" in capsys.readouterr().out


def test_progress_is_one_line_per_second(capsys: pytest.CaptureFixture[str]) -> None:
    """It goes to stderr, so that the report on stdout stays JSON."""
    with serving(ok=answer(), busy=answer(503)) as server:
        cli.main([server.url, "--rate", "20", "--seconds", "2.5", "--progress", "--json", "-"])
    shown = capsys.readouterr()
    assert Report.from_json(shown.out).sent == 50
    first, second = shown.err.splitlines()
    assert first.startswith("   1 s: ok 10 of this second; in all sent 2")
    assert ", status_503 1" in first
    assert second.startswith("   2 s: ok 10 of this second; in all sent 4")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["http://8.8.8.8"], "attack"),
        (["http://127.0.0.1", "--rate", "0"], "rate is 0"),
        (["http://127.0.0.1", "--json", "/nowhere/report.json"], "cannot be written"),
    ],
)
def test_load_that_cannot_be_made_is_exit_code_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says why, and nothing is sent."""
    assert cli.main([*arguments, "--seconds", "0.1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bench.load: ")
    assert complaint in line


@pytest.mark.parametrize("mix", ["PUT:1", "GET:x", "GET,GET", "get", ""])
def test_wrong_mix_of_methods_is_explained(mix: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message comes before anything is sent."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(["http://127.0.0.1", "--method", mix])
    assert "--method" in capsys.readouterr().err
