"""The load is open-loop, ends as it should and finds an outage in time."""

import math
import socket
import threading
import time

import pytest

from bench.load.errors import LoadError
from bench.load.generator import Generator, run
from bench.load.plan import Plan
from bench.load.report import Report, percentiles
from tests.bench.load import server as rogue
from tests.bench.load.server import Behaviour, Request, answer, serving, slowly
from tests.bench.load.test_outcomes import check_sums


def freezing(number: int, seconds: float) -> Behaviour:
    """Freeze the whole server once: every request waits for the one with this number."""
    lock = threading.Lock()

    def behave(connection: socket.socket, request: Request) -> None:
        with lock:
            if request.number == number:
                time.sleep(seconds)
        answer()(connection, request)

    return behave


def wait_for(condition: threading.Event) -> None:
    """Wait for a condition that is bound to come true."""
    assert condition.wait(10)


def test_frozen_server_shows_in_the_percentiles() -> None:
    """Half of all requests were due while it was frozen; a closed loop would have measured only eight slow ones."""
    with serving(ok=freezing(50, 1.0)) as server:
        report = run(Plan(server.url, rate=100, clients=8, seconds=2))
    check_sums(report)
    assert report.planned == report.sent == report.ok == 200
    assert report.latency.p50 < 0.5 < report.latency.p90
    assert report.latency.max > 0.9
    # About one hundred were due meanwhile, of which eight had a client.
    assert 70 <= report.late_starts <= 130
    assert 0.9 < report.longest_gap < 1.9
    assert report.longest_gap_at == pytest.approx(0.5, abs=0.3)


def test_rate_does_not_depend_on_the_server() -> None:
    """Requests keep their due times while the server takes longer than they are apart."""
    with serving(ok=slowly(0.1, answer())) as server:
        report = run(Plan(server.url, rate=50, clients=20, seconds=1))
    assert report.ok == report.planned == 50
    assert [second.ok for second in report.seconds] == [50]
    # A pause of this machine may delay a start; that a fifth has to wait for a client means that they are not used.
    assert report.late_starts <= 10
    assert report.latency.p50 >= 0.1


def test_outage_has_its_place_in_time() -> None:
    """A failure belongs to the second in which its request was due."""

    def outage(connection: socket.socket, request: Request) -> None:
        (answer(502) if 20 <= request.number < 40 else answer())(connection, request)

    with serving(some=outage) as server:
        report = run(Plan(server.url, rate=20, clients=1, seconds=3))
    check_sums(report)
    assert [second.second for second in report.seconds] == [0, 1, 2]
    assert [second.ok for second in report.seconds] == [20, 0, 20]
    assert [second.failed for second in report.seconds] == [{}, {"status_502": 20}, {}]
    assert report.longest_gap == pytest.approx(1, abs=0.5)
    assert len(report.examples) == 20


def test_stop_ends_at_once_and_waits_for_what_is_due() -> None:
    """Everything that was due has an outcome, and nothing is sent afterwards."""
    with serving(ok=slowly(0.1, answer())) as server:
        generator = Generator(Plan(server.url, rate=50, clients=4))
        generator.start()
        time.sleep(0.6)
        generator.stop()
        ended = generator.elapsed()
        assert generator.wait(10)
        report = generator.report()
        assert len(server.requests) == report.sent
    check_sums(report)
    assert report.planned == report.sent == report.ok
    assert report.sent == pytest.approx(ended * 50, abs=2)
    assert report.elapsed == pytest.approx(ended, abs=0.1)


def test_stop_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that fails at once has sent nothing."""
    monkeypatch.setattr("bench.load.generator.HEAD_START", 30)
    with serving() as server:
        generator = Generator(Plan(server.url))
        generator.start()
        generator.stop()
        assert generator.wait(10)
        assert generator.report().planned == generator.report().sent == len(server.requests) == 0


def test_backlog_that_does_not_fit_is_told() -> None:
    """A request that could not even be sent is not ok, and the report must not leave it out."""
    with serving(silent=rogue.never) as server:
        report = run(Plan(server.url, rate=100, clients=1, seconds=0.1, timeout=0.2))
    check_sums(report)
    assert report.planned == 10
    assert 1 <= report.sent < 10
    assert report.failures() == {"timeout": report.sent}


def test_abort_does_not_wait_for_answers() -> None:
    """The requests in flight have no outcome, and the report says so."""
    asked = threading.Event()

    def silent(connection: socket.socket, request: Request) -> None:
        asked.set()
        rogue.never(connection, request)

    with serving(silent=silent) as server:
        generator = Generator(Plan(server.url, rate=100, clients=2, timeout=60))
        generator.start()
        wait_for(asked)
        generator.abort()
        assert generator.wait(10)
        report = generator.report()
    assert report.in_flight == report.sent > 0
    assert report.failures() == {}


def test_report_in_between_does_not_change() -> None:
    """A test compares reports of two moments of one load."""
    with serving() as server:
        generator = Generator(Plan(server.url, rate=100))
        generator.start()
        time.sleep(0.4)
        before = generator.report()
        copy = before.to_json()
        time.sleep(0.2)
        after = generator.report()
        generator.stop()
        assert generator.wait(10)
    assert 0 < before.ok < after.ok <= generator.report().ok
    assert before.sent == before.ok + before.in_flight
    assert before.to_json() == copy


def test_report_survives_json() -> None:
    """A report that is saved today can be compared tomorrow."""
    with serving(ok=answer(), busy=answer(503)) as server:
        report = run(Plan(server.url, rate=100, seconds=0.1, reconnecting=4))
    assert Report.from_json(report.to_json()) == report


def test_latency_that_was_not_measured_passes_no_limit() -> None:
    """Without one ok answer, a limit on the latency must not look kept."""
    with serving(busy=answer(503)) as server:
        report = run(Plan(server.url, rate=100, seconds=0.1))
    again = Report.from_json(report.to_json())
    assert math.isnan(again.latency.p99)
    assert not again.latency.p99 < 1000
    assert again.rejection_latency == report.rejection_latency


def test_percentiles_are_latencies_that_occurred() -> None:
    """They are the nearest rank: nobody waited for the average of a quick and a slow answer."""
    found = percentiles([float(value) for value in range(1000, 0, -1)])
    assert (found.p50, found.p90, found.p99, found.p99_9, found.max) == (500, 900, 990, 999, 1000)
    assert percentiles([3.0]).p50 == percentiles([3.0]).max == 3.0


@pytest.mark.parametrize(
    ("shares", "expected"),
    [({"GET": 1.0}, {"GET": 1000}), ({"GET": 3, "POST": 1}, {"GET": 750, "POST": 250})],
)
def test_methods_are_spread_evenly(shares: dict[str, float], expected: dict[str, int]) -> None:
    """Each stretch has its share, and so has every second request, which is what one of two replicas gets."""
    plan = Plan("http://127.0.0.1", methods=shares)
    for step in (1, 2, 3):
        chosen = [plan.method(number) for number in range(0, 1000 * step, step)]
        for method, count in expected.items():
            assert chosen.count(method) == pytest.approx(count, abs=10)


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (Plan("http://127.0.0.1", rate=0), "rate is 0"),
        (Plan("http://127.0.0.1", clients=0), "clients is 0"),
        (Plan("http://127.0.0.1", seconds=-1), "seconds is -1"),
        (Plan("http://127.0.0.1", timeout=math.inf), "timeout is inf"),
        (Plan("http://127.0.0.1", body_bytes=-1), "body bytes are -1"),
        (Plan("http://127.0.0.1", clients=3, reconnecting=4), "reconnecting clients are 4, they must be 0 to 3"),
        (Plan("http://127.0.0.1", path="whoami"), "must begin with /"),
        (Plan("http://127.0.0.1", path="/a b"), "no spaces"),
        (Plan("http://127.0.0.1", path="/a\r\nX: y"), "special characters"),
        (Plan("http://127.0.0.1", methods={"PATCH": 1}), "unknown method PATCH; known are GET, HEAD, POST"),
        (Plan("http://127.0.0.1", methods={"GET": 0}), "not all 0"),
        (Plan("http://127.0.0.1", methods={"GET": -1, "POST": 1}), "negative"),
    ],
)
def test_plan_that_makes_no_sense_is_refused(plan: Plan, complaint: str) -> None:
    """It is refused before anything is sent."""
    with pytest.raises(LoadError, match=complaint):
        Generator(plan)


def test_load_without_an_end_is_not_waited_for() -> None:
    """The wait would never end."""
    with pytest.raises(LoadError, match="never end"):
        run(Plan("http://127.0.0.1"))
