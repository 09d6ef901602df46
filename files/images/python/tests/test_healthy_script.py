"""`healthy`: it ends with 0 after an answer 2xx in time, else with 1 and one line that says what came back."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HEALTHY = Path(__file__).resolve().parent.parent / "healthy"
LIMIT_SECONDS = 2

Serve = Callable[[bytes | None], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that gives one answer, or with None accepts and stays silent."""
    listeners: list[socket.socket] = []
    released = threading.Event()

    def serve_once(answer: bytes | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer_one_client() -> None:
            connection, _ = listener.accept()
            with connection:
                # Bash sends a request line by line; closing before it is read would reset the connection.
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    request += connection.recv(4096)
                if answer is None:
                    released.wait()
                else:
                    connection.sendall(answer)

        threading.Thread(target=answer_one_client, daemon=True).start()
        return int(listener.getsockname()[1])

    yield serve_once
    released.set()
    for listener in listeners:
        listener.close()


def check(port: int | str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run the script as a health check does."""
    command = [str(HEALTHY), *arguments]
    given = {"PATH": os.environ["PATH"], "PORT": str(port), **environment}
    result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=given)
    assert result.stderr == ""
    return result.returncode, result.stdout


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 204 No Content\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n\x00\xff" + b"x" * 100_000,
    ],
)
def test_any_2xx_is_healthy(serve: Serve, answer: bytes) -> None:
    """Success is silent, whatever the body is."""
    assert check(serve(answer), "/healthz") == (0, "")


@pytest.mark.parametrize("status", ["503 Service Unavailable", "302 Found", "404 Not Found", "2000 Odd"])
def test_any_other_status_is_unhealthy(serve: Serve, status: str) -> None:
    """The engine keeps the output, so it says what came back."""
    port = serve(f"HTTP/1.1 {status}\r\n\r\n".encode())
    assert check(port, "/healthz") == (1, f"healthy: GET /healthz on port {port} answered 'HTTP/1.1 {status}'\n")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n"])
def test_what_is_not_http_is_unhealthy(serve: Serve, answer: bytes) -> None:
    """Something listens, but it is not the app."""
    code, output = check(serve(answer), "/healthz")
    assert (code, output.count("\n")) == (1, 1)


def test_silent_server_is_unhealthy_in_time(serve: Serve) -> None:
    """A hung app accepts connections and never answers."""
    port = serve(None)
    started_at = time.monotonic()
    assert check(port, "/healthz") == (1, f"healthy: no answer to GET /healthz on port {port} within 2 s\n")
    assert LIMIT_SECONDS <= time.monotonic() - started_at < LIMIT_SECONDS + 1


def test_full_backlog_is_unhealthy_in_time() -> None:
    """A hung app under load does not even accept: connecting itself takes for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = int(listener.getsockname()[1])
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        started_at = time.monotonic()
        assert check(port, "/healthz")[0] == 1
        assert time.monotonic() - started_at < LIMIT_SECONDS + 1
        for client in waiting:
            client.close()


def test_closed_port_is_unhealthy() -> None:
    """The server is not there at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert check(port, "/") == (1, f"healthy: nothing answers GET / on port {port} (refused or closed)\n")


@pytest.mark.parametrize(
    ("port", "arguments", "environment"),
    [
        ("5000", (), {}),
        ("5000", ("healthz",), {}),
        ("5000", ("/", "more"), {}),
        ("port", ("/",), {}),
        ("5000", ("/",), {"HANG_SECONDS": "soon"}),
    ],
)
def test_wrong_call_is_unhealthy(port: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    """A wrong health check must not pass, and 1 is the only status that engines take for unhealthy."""
    code, output = check(port, *arguments, **environment)
    assert (code, output.startswith("healthy: wrong call")) == (1, True)


BAD = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
GOOD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a process in the place of the server, as `drain` would note it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        (tmp_path / "server").write_text(f"{os.getpid()} {os.getpid()} {process.pid}\n")
        yield process
        process.kill()


@pytest.fixture
def watch(tmp_path: Path, serve: Serve) -> Callable[[bytes | None], int]:
    """Check the health as in a container that was told to end a server that hangs for a second."""
    given = {"HANG_SECONDS": "1", "SERVER_FILE": str(tmp_path / "server"), "DRAIN_FILE": str(tmp_path / "draining")}
    return lambda answer: check(serve(answer), "/", **given)[0]


def ended(server: "subprocess.Popen[str]") -> bool:
    """Tell whether the process was killed; the script's signal has arrived when the script is over."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return server.wait(1) == -signal.SIGKILL
    return False


@pytest.mark.parametrize("stopped", [False, True], ids=["hangs", "is stopped"])
def test_server_that_hangs_is_ended(
    watch: Callable[[bytes | None], int], server: "subprocess.Popen[str]", stopped: bool
) -> None:
    """The engine restarts a container that ends, but leaves one alone that hangs."""
    assert watch(GOOD) == 0
    if stopped:
        server.send_signal(signal.SIGSTOP)
    assert watch(None) == 1
    assert ended(server)


def test_server_that_answers_badly_is_ended_at_the_second_time(
    watch: Callable[[bytes | None], int], server: "subprocess.Popen[str]"
) -> None:
    """One bad answer may be an accident; a good one in between restarts the count."""
    assert [watch(answer) for answer in (GOOD, BAD, GOOD, BAD)] == [0, 1, 0, 1]
    assert not ended(server)
    assert watch(BAD) == 1
    assert ended(server)


def test_server_that_still_starts_is_left_alone(
    watch: Callable[[bytes | None], int], server: "subprocess.Popen[str]"
) -> None:
    """An app that takes a minute to load would otherwise never get up."""
    assert [watch(answer) for answer in (BAD, None, BAD)] == [1, 1, 1]
    assert not ended(server)


def test_server_that_drains_is_left_alone(
    watch: Callable[[bytes | None], int], server: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    """It has requests to finish, and ends anyway."""
    assert watch(GOOD) == 0
    (tmp_path / "draining").touch()
    assert [watch(None), watch(BAD)] == [1, 1]
    assert not ended(server)


def test_nothing_is_ended_unasked(server: "subprocess.Popen[str]", serve: Serve, tmp_path: Path) -> None:
    """HANG_SECONDS=0 leaves a health check that only tells."""
    given = {"HANG_SECONDS": "0", "SERVER_FILE": str(tmp_path / "server"), "DRAIN_FILE": str(tmp_path / "draining")}
    assert [check(serve(answer), "/", **given)[0] for answer in (GOOD, BAD, None)] == [0, 1, 1]
    assert not ended(server)
