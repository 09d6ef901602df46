"""`_flask_fleet.wrapper`: what every app has in front of it."""

import logging
import logging.handlers
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, EnvironBuilder
from werkzeug.wrappers import Request, Response

from _flask_fleet import logs
from _flask_fleet.logs import request_id
from _flask_fleet.work import Work
from _flask_fleet.wrapper import Wrapper, only_for

LOGGER = logging.getLogger("app")

Start = Callable[..., Any]


def answering(status: int, body: str = "the app's own") -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    """Make an app that gives one answer to everything."""
    return Response(body, status)


@pytest.fixture
def drain_file(tmp_path: Path) -> Path:
    """Name a drain file that does not exist yet."""
    return tmp_path / "draining"


@pytest.fixture
def wrapped(drain_file: Path) -> Callable[..., Wrapper]:
    """Wrap an app."""
    work = Work(30, 1, drain_file.with_name("work"))
    return lambda app: Wrapper(app, health_path="/healthz", ready_path="/readyz", drain_file=drain_file, work=work)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, (200, "the app's own")),
        (204, (204, "")),
        (302, (200, "ok\n")),
        (404, (200, "ok\n")),
        (405, (200, "ok\n")),
        (500, (500, "the app's own")),
        (503, (503, "the app's own")),
    ],
)
def test_app_without_such_a_page_serves_too(
    wrapped: Callable[..., Wrapper], path: str, status: int, expected: tuple[int, str]
) -> None:
    """Only the app itself can report a failure of it; its own success is passed on."""
    answer = Client(wrapped(answering(status))).get(path)
    assert (answer.status_code, answer.text) == expected


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/healthz"), ("GET", "/health"), ("GET", "/"), ("PUT", "/readyz")]
)
def test_other_answers_stay_as_they_are(wrapped: Callable[..., Wrapper], method: str, path: str) -> None:
    """A 404 that became 200 would be wrong everywhere else."""
    answer = Client(wrapped(answering(404))).open(path, method=method)
    assert (answer.status_code, answer.text) == (404, "the app's own")


def test_health_page_names_the_replica(wrapped: Callable[..., Wrapper]) -> None:
    """The deploy asks on the health page which replica answers, whatever app it is; no other answer says so."""
    client = Client(wrapped(answering(404)))
    named = [client.get(path).headers.get("X-Replica") for path in ("/healthz", "/readyz", "/")]
    assert named == [socket.gethostname(), None, None]


def test_head_is_a_probe_without_a_body(wrapped: Callable[..., Wrapper]) -> None:
    """Some monitors send HEAD requests."""
    answer = Client(wrapped(answering(404))).head("/healthz")
    assert (answer.status_code, answer.data) == (200, b"")


def test_readiness_follows_the_drain_file(wrapped: Callable[..., Wrapper], drain_file: Path) -> None:
    """The app is ready, not ready while the file exists, then ready again; it is alive and at work all the time."""
    client = Client(wrapped(answering(200)))
    assert client.get("/readyz").status_code == 200
    drain_file.touch()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text, answer.headers["Cache-Control"]) == (503, "draining\n", "no-store")
    assert [client.get(path).status_code for path in ("/healthz", "/", "/readyz/more")] == [200] * 3
    drain_file.unlink()
    assert client.get("/readyz").status_code == 200


def test_one_proxy_is_believed(wrapped: Callable[..., Wrapper]) -> None:
    """Entries further left in the headers may be forged."""

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        request = Request(environ)
        return Response(f"{request.remote_addr} {request.scheme} {request.host}")(environ, start)

    headers = {"X-Forwarded-For": "a, b", "X-Forwarded-Proto": "http, https", "X-Forwarded-Host": "c, d"}
    assert Client(wrapped(app)).get("/", headers=headers).text == "b https d"


@pytest.mark.parametrize("path", ["/", "/readyz"])
def test_request_for_another_service_is_refused(wrapped: Callable[..., Wrapper], path: str) -> None:
    """The address was that service's before; a request that names none comes from inside, or from an older nginx."""
    client = Client(wrapped(only_for("app", answering(200))))
    statuses = [
        client.get(path, headers={"X-Flask-Fleet-Service": name} if name else {}).status_code
        for name in ("api", "app", "")
    ]
    assert statuses == [503, 200, 200]


class Recorded(logging.Handler):
    """Remembers the request that every record belongs to."""

    def __init__(self) -> None:
        """Start without any."""
        super().__init__()
        self.ids: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember one record."""
        self.ids.append(record.fleet_request_id)  # type: ignore[attr-defined]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Have records name their request, and take everything back after the test."""
    root, factory, handle = logging.getLogger(), logging.getLogRecordFactory(), logging.Handler.handle
    before, level = root.handlers[:], root.level
    logs.install()
    handler = Recorded()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    logging.setLogRecordFactory(factory)
    logging.Handler.handle = handle  # type: ignore[method-assign]
    root.handlers[:] = before
    root.setLevel(level)


class Chatty:
    """A body that logs when it is begun, with every part, and when it is closed."""

    def __iter__(self) -> Iterator[bytes]:
        """Log each step of the body."""
        LOGGER.info("begun")
        for _ in range(2):
            LOGGER.info("part")
            yield b"x"

    def close(self) -> None:
        """Log the end."""
        LOGGER.info("closed")


def chatty(_environ: dict[str, Any], start: Start) -> Chatty:
    """Log at every step of an answer."""
    LOGGER.info("called")
    start("200 OK", [])
    return Chatty()


def test_every_record_of_a_request_has_its_id_and_none_after_it(
    wrapped: Callable[..., Wrapper], recorded: Recorded
) -> None:
    """The id is there while the answer is made, streamed and closed; the thread then takes another request."""
    environ = EnvironBuilder(headers=[("X-Request-ID", "one")]).get_environ()
    body = wrapped(chatty)(environ, lambda *_: None)
    LOGGER.info("between")
    assert list(body) == [b"x", b"x"]
    body.close()  # type: ignore[attr-defined]
    LOGGER.info("after")
    assert recorded.ids == ["one", "-", "one", "one", "one", "one", "-"]


def test_requests_in_other_threads_do_not_mix(wrapped: Callable[..., Wrapper], recorded: Recorded) -> None:
    """Granian may make the parts of an answer in another thread than the one that called the app."""
    app = wrapped(chatty)
    bodies = [
        app(EnvironBuilder(headers=[("X-Request-ID", name)]).get_environ(), lambda *_: None) for name in ("a", "b")
    ]
    iterators = [iter(body) for body in bodies]
    recorded.ids.clear()
    for iterator in (*iterators, *iterators):
        thread = threading.Thread(target=next, args=(iterator,))
        thread.start()
        thread.join()
    assert recorded.ids == ["a", "a", "b", "b", "a", "b"]


def test_app_may_have_an_id_of_its_own(recorded: Recorded) -> None:
    """Logging raises when a record has the name already, and many apps give their requests ids."""
    LOGGER.info("sold", extra={"request_id": "mine", "request": "mine"})
    assert recorded.ids == ["-"]


class Foreign(logging.LogRecord):
    """What an app may have in the place of the usual record."""


def by_another_factory() -> None:
    """Log as an app whose records are its own."""
    logging.setLogRecordFactory(Foreign)
    LOGGER.info("sold")


def without_a_factory() -> None:
    """Pass on a record as one gets it from another process."""
    LOGGER.handle(logging.LogRecord("app", logging.INFO, "shop.py", 1, "sold", None, None))


def over_a_queue() -> None:
    """Have another thread write it, as an app does whose requests are not to wait for the disk."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, *logging.getLogger().handlers)
    listener.start()
    records.put(logging.LogRecord("app", logging.INFO, "shop.py", 1, "sold", None, None))
    listener.stop()


@pytest.mark.parametrize("log", [by_another_factory, without_a_factory, over_a_queue])
def test_record_made_elsewhere_is_written_all_the_same(
    recorded: Recorded, capfd: pytest.CaptureFixture[str], log: Callable[[], None]
) -> None:
    """The format is ours or the app's; without an id logging would say "Logging error" and drop the line."""
    own = logging.StreamHandler()
    own.setFormatter(logging.Formatter("%(fleet_request_id)s %(message)s"))
    logging.getLogger().addHandler(own)
    log()
    assert capfd.readouterr().err.splitlines()[-1] == "- sold"
    assert recorded.ids == ["-"]


def test_without_an_id_there_is_a_dash(wrapped: Callable[..., Wrapper], recorded: Recorded) -> None:
    """The health check asks without one."""
    Client(wrapped(chatty)).get("/")
    assert set(recorded.ids) == {"-"}
    assert request_id.get() == "-"


@pytest.mark.parametrize("read", [0, 3])
def test_rest_of_a_body_is_read(wrapped: Callable[..., Wrapper], read: int) -> None:
    """Without that the connection is reset before the answer arrives."""

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        environ["wsgi.input"].read(read)
        return Response("done")(environ, start)

    body = BytesIO(b"x" * 100_000)
    environ = EnvironBuilder(method="POST", input_stream=body, content_length=100_000).get_environ()
    assert b"".join(wrapped(app)(environ, lambda *_: None)) == b"done"
    assert body.read() == b""


def test_file_is_sent_as_any_other_body(wrapped: Callable[..., Wrapper]) -> None:
    """Gunicorn would send the header alone; it looks in its own environ for the file wrapper, so that one keeps it."""
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        seen.update(environ)
        return Response()(environ, start)

    environ = EnvironBuilder().get_environ() | {"wsgi.file_wrapper": object}
    list(wrapped(app)(environ, lambda *_: None))
    assert "wsgi.file_wrapper" not in seen
    assert "wsgi.file_wrapper" in environ
