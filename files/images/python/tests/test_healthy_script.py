"""`healthy`: 0 for an answer 2xx in time, else 1 and one line that says what came back."""

import socket
import subprocess
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


def check(*arguments: str) -> tuple[int, str]:
    """Run the script as a health check does."""
    command = [str(HEALTHY), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
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
    assert check(str(serve(answer)), "/healthz") == (0, "")


@pytest.mark.parametrize("status", ["503 Service Unavailable", "302 Found", "404 Not Found", "2000 Odd"])
def test_any_other_status_is_unhealthy(serve: Serve, status: str) -> None:
    """The engine keeps the output, so it says what came back."""
    port = serve(f"HTTP/1.1 {status}\r\n\r\n".encode())
    assert check(str(port), "/healthz") == (1, f"healthy: GET /healthz on port {port} answered 'HTTP/1.1 {status}'\n")


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n"])
def test_what_is_not_http_is_unhealthy(serve: Serve, answer: bytes) -> None:
    """Something listens, but it is not the app."""
    code, output = check(str(serve(answer)), "/healthz")
    assert (code, output.count("\n")) == (1, 1)


def test_silent_server_is_unhealthy_in_time(serve: Serve) -> None:
    """A hung app accepts connections and never answers."""
    port = serve(None)
    started_at = time.monotonic()
    assert check(str(port), "/healthz") == (1, f"healthy: no answer to GET /healthz on port {port} within 2 s\n")
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
        assert check(str(port), "/healthz")[0] == 1
        assert time.monotonic() - started_at < LIMIT_SECONDS + 1
        for client in waiting:
            client.close()


def test_closed_port_is_unhealthy() -> None:
    """The server is not there at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert check(str(port), "/") == (1, f"healthy: nothing answers GET / on port {port} (refused or closed)\n")


@pytest.mark.parametrize("arguments", [(), ("5000",), ("port", "/"), ("5000", "healthz"), ("5000", "/", "more")])
def test_wrong_call_is_unhealthy(arguments: tuple[str, ...]) -> None:
    """A wrong health check must not pass, and 1 is the only status that engines take for unhealthy."""
    assert check(*arguments) == (1, "healthy: wrong call, want: healthy PORT /PATH\n")
