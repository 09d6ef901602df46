"""The API for tests, which runs the generator in a process of its own."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.load import Load, LoadError, worker
from tests.bench.load import server as rogue
from tests.bench.load.server import Server, answer, serving
from tests.bench.load.test_outcomes import check_sums
from tests.project import ROOT


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition that is bound to come true."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_load_lasts_as_long_as_its_block() -> None:
    """There are reports in the middle and at the end, and their sums are right."""
    with serving(ok=answer(), busy=answer(503)) as server:
        with Load(server.url, rate=100, clients=4, methods={"GET": 0.5, "POST": 0.5}, body_bytes=7) as load:
            eventually(lambda: load.report().ok > 10)
            between = load.report()
            moment = load.elapsed()
        sent = len(server.requests)
        time.sleep(0.1)
        assert len(server.requests) == sent
    report = load.report()
    check_sums(report)
    assert report.planned == report.sent == sent
    assert report.ok == server.done["ok"]
    assert report.failures() == {"status_503": server.done["busy"]}
    assert 10 < between.ok <= report.ok
    assert between.elapsed <= moment <= report.elapsed + 0.1
    assert {len(request.body) for request in server.requests if request.method == "POST"} == {7}


def end_with(error: BaseException, load: Load, server: Server) -> None:
    """Leave a load's block with an exception, once a request has arrived."""
    with load:
        eventually(lambda: bool(server.requests))
        raise error


def test_report_of_a_block_that_failed_is_kept() -> None:
    """The failure is what the test is about; the report may explain it."""
    with serving() as server:
        load = Load(server.url)
        with pytest.raises(ZeroDivisionError):
            end_with(ZeroDivisionError(), load, server)
    assert load.report().ok > 0


def test_interrupted_test_does_not_wait() -> None:
    """Ctrl-C must not take as long as the time-out of a hanging server."""
    with serving(silent=rogue.never) as server:
        load = Load(server.url, timeout=60)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            end_with(KeyboardInterrupt(), load, server)
        assert time.monotonic() - begun < 30
    with pytest.raises(LoadError, match="no report"):
        load.report()


def test_interrupt_from_the_terminal_is_left_to_the_test() -> None:
    """Ctrl-C reaches every process of the terminal; the test may want its report before it ends."""
    with serving() as server, Load(server.url) as load:
        process = load._process  # noqa: SLF001 (the terminal knows it too)
        assert process is not None
        before = load.report().sent
        process.send_signal(signal.SIGINT)
        eventually(lambda: load.report().sent > before + 20)
    assert load.report().failures() == {}


def test_load_without_its_block_has_no_report() -> None:
    """A forgotten `with` must not look like a load without failures."""
    with pytest.raises(LoadError, match="no report"):
        Load("http://127.0.0.1").report()


@pytest.mark.parametrize("asked", [True, False])
def test_generator_that_dies_is_noticed(asked: bool) -> None:
    """Half a load must not look like a whole one, whether a report is asked for or only the block ends."""
    with serving() as server, pytest.raises(LoadError, match="ended with -9"):
        kill_generator(Load(server.url), asked)


def kill_generator(load: Load, asked: bool) -> None:
    """Kill the generator's process in the block."""
    with load:
        process = load._process  # noqa: SLF001 (to kill it is the test)
        assert process is not None
        process.kill()
        process.wait()
        if asked:
            load.report()


def test_generator_ends_when_the_test_is_killed() -> None:
    """A load that nobody watches would go on for ever."""
    script = (
        "import os, sys; from bench.load import Load\n"
        "with Load(sys.argv[1], rate=50) as load:\n"
        "    print(load._process.pid, flush=True); sys.stdin.read()"
    )
    with serving() as server:
        command = [sys.executable, "-c", script, server.url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as test:
            assert test.stdout is not None
            generator = int(test.stdout.readline())
            eventually(lambda: len(server.requests) > 0)
            test.kill()
            eventually(lambda: not is_running(generator))


def is_running(process: int) -> bool:
    """Tell whether a process runs; one that only waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_fault_of_this_machine_reaches_the_test() -> None:
    """The test gets the reason, not only an exit code."""
    plan = '{"url": "http://127.0.0.1", "rate": 0}\n'
    ended = subprocess.run(
        [sys.executable, "-m", worker.__name__], input=plan, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 1
    assert ended.stderr == "rate is 0, it must be above 0\n"
