"""`_flask_fleet.work`: busy threads are told apart from a server where nothing moves."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from _flask_fleet.work import Work
from _flask_fleet.wrapper import Wrapper

REQUEST_SECONDS = 100.0
PAUSE_SECONDS = 10.0


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        """Start at some time."""
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the machine's clock."""
    clock = Clock()
    monkeypatch.setattr("_flask_fleet.work.time", clock)
    return clock


@pytest.fixture
def work(tmp_path: Path, clock: Clock) -> Work:  # noqa: ARG001 (it is read as soon as there is one)
    """Start without any request."""
    return Work(REQUEST_SECONDS, PAUSE_SECONDS, tmp_path / "work")


def parts(_environ: dict[str, Any], start: Any) -> Iterator[bytes]:
    """Answer in two parts."""
    start("200 OK", [])
    yield b"one"
    yield b"two"


def body(work: Work, path: str = "/", **headers: str) -> Any:
    """Start a request."""
    wrapper = Wrapper(
        parts, health_path="/healthz", ready_path="/readyz", drain_file=work.file.with_name("draining"), work=work
    )
    return wrapper(EnvironBuilder(path=path, headers=list(headers.items())).get_environ(), lambda *_: None)


def still(work: Work, clock: Clock, *after: float) -> list[bool]:
    """Ask again and again, after so many seconds each time."""
    answers = []
    for seconds in after:
        clock.now += seconds
        answers.append(work.stands_still())
    return answers


def test_nothing_to_do_is_no_excuse_for_silence(work: Work, clock: Clock) -> None:
    """The health check asks only when the server itself does not answer; after the pause that is a standstill."""
    assert still(work, clock, 9, 2) == [False, True]


def test_each_part_of_an_answer_starts_the_time_anew(work: Work, clock: Clock) -> None:
    """A request is late when the application gives no word of it; the client may take its time."""
    work.enter("request", REQUEST_SECONDS)
    assert still(work, clock, 90) == [False]
    work.leave("request")
    assert still(work, clock, 10_000) == [False]
    work.enter("request", REQUEST_SECONDS)
    assert still(work, clock, 90, 20) == [False, True]
    work.leave("request")
    assert still(work, clock, 1) == [False]


def test_one_request_in_time_is_enough(work: Work, clock: Clock) -> None:
    """Threads that wait for ever are lost, but the server is not."""
    work.enter("late", REQUEST_SECONDS)
    clock.now += 60
    work.enter("in time", REQUEST_SECONDS)
    assert still(work, clock, 60, 60) == [False, True]


def test_request_that_is_over_is_forgotten(work: Work, clock: Clock) -> None:
    """This includes one whose client left in the middle, and one whose application raised."""
    answer = body(work)
    assert next(answer) == b"one"
    assert len(work.late_at) == 1
    answer.close()
    with pytest.raises(TypeError):
        Wrapper(
            None,  # type: ignore[arg-type]
            health_path="",
            ready_path="",
            drain_file=Path(),
            work=work,
        )(EnvironBuilder().get_environ(), lambda *_: None)
    assert work.late_at == {}
    assert still(work, clock, 11) == [True]


def test_probe_keeps_nobody_busy(work: Work, clock: Clock) -> None:
    """The balancer asks twice a second: a probe that waits for ever must not look like work."""
    probe = body(work, "/readyz")
    work.enter(probe, probe.seconds)
    assert still(work, clock, 11) == [True]


def test_websocket_may_be_silent(work: Work, clock: Clock) -> None:
    """The application holds it for hours, and its messages are not seen here."""
    socket_body = body(work, "/", Upgrade="websocket")
    work.enter(socket_body, socket_body.seconds)
    assert still(work, clock, 100_000) == [False]


def test_health_check_is_answered_by_a_thread_of_its_own(tmp_path: Path) -> None:
    """The thread starts with the first request, once in each process."""
    work = Work(REQUEST_SECONDS, 0.2, tmp_path / "work")
    for _ in range(2):
        body(work).close()
    port = int(work.file.read_text())
    said = []
    for pause in (0, 0.3):
        time.sleep(pause)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            said.append(connection.recv(100))
    assert said == [b"works\n", b"stands still\n"]
