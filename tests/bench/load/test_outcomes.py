"""Whatever a server does, each request has exactly one outcome, and it is the right one."""

import socket
import threading
import time

import pytest

from bench.load import connection
from bench.load.errors import LoadError
from bench.load.generator import run
from bench.load.plan import Plan
from bench.load.report import Method, Report
from bench.load.target import Target
from tests.bench.load import server as rogue
from tests.bench.load.server import BODY, Behaviour, Server, answer, send, serving, slowly, then_close

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"%x;note=1\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: t\r\n\r\n" % (10, BODY[:10], len(BODY) - 10, BODY[10:])

OK: dict[str, Behaviour] = {
    "content_length": answer(),
    "status_404": answer(404),
    "no_content": send(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "chunked": send(CHUNKED + CHUNKS),
    "interim": send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "equal_lengths": send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
    "until_the_end": then_close(send(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)),
    "http_1_0": then_close(send(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx")),
    "last_of_its_connection": then_close(answer(headers="Connection: close\r\n")),
    "slow": slowly(0.1, answer()),
}

MALFORMED: dict[str, Behaviour] = {
    "half_a_head": then_close(send(b"HTTP/1.1 200 OK\r\nContent-")),
    "half_a_body": then_close(send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")),
    "half_the_chunks": then_close(send(CHUNKED + b"5\r\nhello\r\n")),
    "too_much_body": send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxyz"),
    "wrong_chunk_end": send(CHUNKED + b"1\r\nhello\r\n0\r\n\r\n"),
    "wrong_chunk_size": send(CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"),
    "not_http": send(b"SSH-2.0-OpenSSH_10.0\r\n\r\n"),
    "wrong_status": send(b"HTTP/1.1 2000 OK\r\n\r\n"),
    "wrong_header": send(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
    "wrong_length": send(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    "two_lengths": send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
    "length_and_chunks": send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
}


def load(server: Server, requests: int = 12, clients: int = 2, timeout: float = 5.0, **shares: float) -> Report:
    """Send some requests in a tenth of a second and check that the sums are right."""
    plan = Plan(server.url, requests * 10, clients, 0.1, shares or {"GET": 1.0}, timeout=timeout)
    report = run(plan)
    check_sums(report)
    assert report.planned == report.sent == requests
    return report


def check_sums(report: Report) -> None:
    """Check that every request that was sent has one outcome, however the outcomes are added up."""
    assert report.in_flight == 0
    assert report.sent == report.ok + sum(report.failures().values())
    assert report.sent == sum(second.ok + sum(second.failed.values()) for second in report.seconds)
    for method in report.methods.values():
        assert method.sent == method.ok + sum(method.failed.values())
    assert report.sent == sum(method.sent for method in report.methods.values())


@pytest.mark.parametrize("name", OK)
def test_every_way_to_end_an_answer_is_understood(name: str) -> None:
    """An answer that is right must not be counted as a failure."""
    with serving(ok=OK[name]) as server:
        report = load(server)
    assert report.failures() == {}
    assert report.ok == server.done["ok"] == 12


@pytest.mark.parametrize("name", MALFORMED)
def test_wrong_answer_is_malformed(name: str) -> None:
    """Half an answer is no answer, whatever its status was; the next request gets a connection of its own."""
    with serving(bad=MALFORMED[name], good=answer()) as server:
        report = load(server)
    assert report.failures() == {"malformed": server.done["bad"]} == {"malformed": 6}
    assert report.ok == server.done["good"] == 6


def test_failing_statuses_are_counted_by_code() -> None:
    """A 503 of a maintenance page, a 502 of a dead replica and a 429 have different causes."""
    with serving(ok=answer(), busy=answer(503), bad=answer(502), limit=answer(429)) as server:
        report = load(server)
    assert report.failures() == {"status_503": 3, "status_502": 3, "status_429": 3}
    assert report.statuses == {"200": 3, "502": 3, "503": 3, "429": 3}
    assert report.rejection_latency.max < 5
    # An answer is also counted for who gave it when it is a failure: a broken release must not answer at all.
    assert report.containers["c0ffee"].count == report.releases["r1"].count == 12


@pytest.mark.parametrize("behaviour", [rogue.close, rogue.reset])
def test_connection_that_ends_without_an_answer_is_a_reset(behaviour: Behaviour) -> None:
    """The request is never repeated, because a client would see the failure."""
    with serving(ok=answer(), gone=behaviour) as server:
        report = load(server, clients=1)
    assert report.failures() == {"reset": 6}
    assert len(server.requests) == 12
    assert report.resets_reused == 6
    assert report.connections == server.connections == 6
    assert report.examples[0].detail.endswith("reused connection")


def test_reset_of_a_new_connection_is_told_apart() -> None:
    """A server that resets its first request is broken; one that resets a later one may have closed for idleness."""
    with serving(gone=rogue.reset) as server:
        report = load(server)
    assert report.failures() == {"reset": 12}
    assert report.resets_reused == 0
    assert report.connections == 12


def test_connection_that_is_closed_while_idle_is_no_failure() -> None:
    """A client that sees the close before it sends opens another connection, and nobody notices."""
    with serving(idle=0.1) as server:
        report = run(Plan(server.url, rate=2, clients=1, seconds=1.5))
    check_sums(report)
    assert report.failures() == {}
    assert report.ok == 3
    assert report.idle_closes == 2
    assert report.connections == server.connections == 3


def test_reconnecting_client_opens_a_connection_for_each_request() -> None:
    """Most visitors come once; what only refuses new connections is invisible to clients that keep theirs."""
    with serving(ok=answer(), gone=rogue.reset) as server:
        report = run(Plan(server.url, rate=60, clients=1, seconds=0.2, reconnecting=1))
        check_sums(report)
        assert report.connections == server.connections == 12
        assert report.resets_reused == 0
    assert report.new_connections == Method(12, 6, {"reset": 6})


def test_other_clients_keep_their_connections() -> None:
    """Both kinds of clients run at a time, and each request over a new connection is counted apart."""
    with serving(slow=slowly(0.05, answer())) as server:
        report = run(Plan(server.url, rate=100, clients=8, seconds=0.5, reconnecting=4))
    check_sums(report)
    assert 0 < report.new_connections.ok == report.new_connections.sent < report.ok
    assert report.connections == server.connections <= report.new_connections.sent + 4


@pytest.mark.parametrize("behaviour", [rogue.never, rogue.drip])
def test_no_complete_answer_in_time_is_a_timeout(behaviour: Behaviour) -> None:
    """The time is for the whole answer: a server that sends a byte now and then has not answered."""
    with serving(ok=answer(), silent=behaviour) as server:
        report = load(server, requests=4, timeout=0.6)
    assert report.failures() == {"timeout": 2}
    assert report.ok == 2


def test_nobody_listening_is_refused() -> None:
    """The port is taken but not listened on, so that no one else can answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        report = run(Plan(f"http://127.0.0.1:{taken.getsockname()[1]}", rate=100, seconds=0.1))
    check_sums(report)
    assert report.failures() == {"refused": 10}
    assert report.ok == report.connections == 0


def test_connection_to_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a free port the kernel can connect a client to itself, and its own request would be the answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        monkeypatch.setattr(socket.socket, "getsockname", socket.socket.getpeername)
        client = connection.Connection(Target("test", (address,)))
        with pytest.raises(connection.Refused, match="itself"):
            client.exchange(b"GET / HTTP/1.1\r\n\r\n", 1)


def test_other_addresses_of_a_name_are_tried() -> None:
    """`localhost` is two addresses, and Docker may publish a port on one of them only."""
    with serving() as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        client = connection.Connection(Target("test", (taken.getsockname(), address)))
        assert client.exchange(b"GET / HTTP/1.1\r\n\r\n", 5).status == 200
        client.close()


def test_fault_of_this_machine_is_not_counted_against_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """When file handles run out here, the server must not be blamed."""

    def exhausted(*_arguments: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(connection.Connection, "_connect_to", exhausted)
    with serving() as server, pytest.raises(LoadError, match="Too many open files"):
        run(Plan(server.url, seconds=30))


def test_methods_have_their_shares_and_counts() -> None:
    """GET may be retried by a balancer and POST may not, so their failures mean different things."""
    with serving(ok=answer(), busy=answer(503)) as server:
        report = load(server, requests=100, GET=0.8, POST=0.2)
    arrived = [request.method for request in server.requests]
    assert report.methods["GET"].sent == arrived.count("GET") == pytest.approx(80, abs=2)
    assert report.methods["POST"].sent == arrived.count("POST") == pytest.approx(20, abs=2)
    failed = [sum(report.failures(method).values()) for method in ("GET", "POST")]
    assert sum(failed) == sum(report.failures().values()) == 50
    with pytest.raises(KeyError):
        report.failures("PUT")


def test_what_is_sent() -> None:
    """A POST has a body of the wanted size, a HEAD expects none in its answer."""
    with serving(ok=send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")) as server:
        assert run(Plan(server.url, 100, seconds=0.05, methods={"HEAD": 1}, path="/a?b=c")).ok == 5
    assert all(request.head.startswith("HEAD /a?b=c HTTP/1.1\r\n") for request in server.requests)
    with serving() as server:
        assert run(Plan(server.url, 100, seconds=0.05, methods={"POST": 1}, body_bytes=200_000)).ok == 5
    assert {len(request.body) for request in server.requests} == {200_000}
    assert f"\r\nHost: {server.url.removeprefix('http://')}\r\n" in server.requests[0].head


def test_answer_to_a_body_that_was_refused_counts() -> None:
    """A server that answers 413 and closes, without reading to the end, has answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connection.Connection(Target("test", (listener.getsockname(),)))
        early = threading.Thread(target=refuse_body, args=(listener,))
        early.start()
        # More than the sockets' buffers hold, so that the client is still sending when the server closes.
        assert client.exchange(b"POST / HTTP/1.1\r\n\r\n" + bytes(50_000_000), 5).status == 413
        early.join()


def refuse_body(listener: socket.socket) -> None:
    """Answer at once and stop reading."""
    accepted, _ = listener.accept()
    with accepted:
        accepted.recv(1)
        accepted.sendall(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        accepted.shutdown(socket.SHUT_RD)
        time.sleep(0.2)


def test_time_of_one_request_is_bounded() -> None:
    """A timeout ends the request, so that the client is free for the next one."""
    with serving(silent=rogue.never) as server:
        begun = time.monotonic()
        report = run(Plan(server.url, 10, 1, 0.1, timeout=0.2))
    assert report.failures() == {"timeout": 1}
    assert time.monotonic() - begun < 5
