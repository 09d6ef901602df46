"""The counter of visits: only where it is switched on, and never in the way of a page."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import ConnectionError as NoConnection

from hello import create_app, settings_from_environment
from hello.visits import PAUSE_S, Visits

PATIENCE_S = 1


class Server:
    """As much of Redis as the counter uses, in memory."""

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self.numbers: dict[str, int] = {}
        self.away = False

    @contextmanager
    def pipeline(self) -> Iterator["Server"]:
        """Collect commands."""
        self.answers: list[int] = []
        yield self

    def incrby(self, key: str, more: int) -> None:
        """Add to a number."""
        self.numbers[key] = self.numbers.get(key, 0) + more
        self.answers.append(self.numbers[key])

    def expire(self, _key: str, seconds: int) -> None:
        """Forget a number after some time."""
        self.answers.append(seconds)

    def execute(self) -> list[int]:
        """Give the answers."""
        if self.away:
            raise NoConnection("gone")
        return self.answers


def replica(server: Server, container: str) -> FlaskClient:
    """Make a client of a replica that counts on that server."""
    app = create_app({"TESTING": True, "CONTAINER_ID": container, "REDIS_HOST": "cache"})
    app.extensions["visits"].__dict__["_redis"] = server
    return app.test_client()


def counted(client: FlaskClient) -> Any:
    """Ask a replica for its numbers."""
    return client.get("/whoami").get_json()["counted"]


def test_visits_are_counted_by_replica_and_in_total() -> None:
    """The page counts, whoami only tells."""
    server = Server()
    one, two = replica(server, "one"), replica(server, "two")
    assert '<dd id="counted-total">1</dd>' in one.get("/").text
    page = two.get("/").text
    assert '<dd id="counted-replica">1</dd>' in page
    assert '<dd id="counted-total">2</dd>' in page
    assert counted(one) == counted(two) == {"replica": 1, "total": 2}


def test_without_a_redis_nothing_is_counted(client: FlaskClient) -> None:
    """The app works as it did before it could count."""
    assert "counted-" not in client.get("/").text
    assert "counted" not in client.get("/whoami").get_json()


def test_page_says_that_the_numbers_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while nobody asks again, and then all is as before."""
    server, now = Server(), time.monotonic()
    client = replica(server, "one")
    server.away = True
    page = client.get("/")
    assert page.status_code == 200
    assert '<dd id="counted-total">not reachable</dd>' in page.text
    server.away = False
    assert counted(client) == "not reachable"
    monkeypatch.setattr(time, "monotonic", lambda: now + PAUSE_S + 1)
    assert counted(client)["total"] == 1


def test_server_that_says_nothing_holds_no_page_up() -> None:
    """It takes the connection and hangs; the second page does not even ask."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        visits = Visits("127.0.0.1", "password", "one")
        visits._redis.connection_pool.connection_kwargs["port"] = port  # noqa: SLF001 (nobody else has another port)
        since = time.monotonic()
        assert visits.count(1) is None
        assert visits.count(1) is None
        assert time.monotonic() - since < PATIENCE_S


def test_name_that_nobody_knows_holds_no_page_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up has no time limit of its own."""
    done = threading.Event()

    def look_up(*_: object, **__: object) -> list[Any]:
        done.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    since = time.monotonic()
    assert Visits("cache", None, "one").count(1) is None
    assert time.monotonic() - since < PATIENCE_S
    done.set()


def test_nobody_at_the_port_is_said_at_once() -> None:
    """So it is while the server is replaced."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        visits = Visits("127.0.0.1", None, "one")
        visits._redis.connection_pool.connection_kwargs["port"] = unused.getsockname()[1]  # noqa: SLF001 (as above)
        assert visits.count(1) is None


def test_password_is_that_of_the_accessory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the accessory is called."""
    (tmp_path / "cache_password").write_text("of the cache", encoding="utf-8")
    monkeypatch.setenv("SECRETS_FOLDER", str(tmp_path))
    monkeypatch.setenv("REDIS_HOST", "cache")
    settings = settings_from_environment()
    assert (settings["REDIS_HOST"], settings["REDIS_PASSWORD"]) == ("cache", "of the cache")
