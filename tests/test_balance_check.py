"""Answers are counted over a real socket, and whatever is no answer of a replica is a failure."""

import http.client
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from roles.stack.library import balance_check
from tests.project import ROOT
from tests.self_signed import self_signed, serving

Answer = tuple[int, str]
Run = Callable[..., dict[str, Any]]

READY: list[Answer] = [(200, name) for name in ("a", "b", "c")]
NOT_READY: Answer = (503, "")


class Stack(http.server.ThreadingHTTPServer):
    """Gives some answers once, then others in turn, and counts connections."""

    first: list[Answer]
    then: list[Answer]
    paths: list[str]
    connections = 0

    def next(self) -> Answer:
        """Choose the next answer."""
        if self.first:
            return self.first.pop(0)
        self.then.append(self.then.pop(0))
        return self.then[-1]


class Replica(http.server.BaseHTTPRequestHandler):
    """Answers over a kept connection, as nginx does."""

    protocol_version = "HTTP/1.1"
    # Head and body in one packet: sent as two, the second would wait for the client's delayed acknowledgement.
    wbufsize = -1
    server: Stack

    def setup(self) -> None:
        """Count the connection."""
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        """Give the next answer."""
        self.server.paths.append(self.path)
        status, name = self.server.next()
        self.send_response(status)
        if name:
            self.send_header("X-Replica", name)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Start a stack of three replicas."""
    with Stack(("127.0.0.1", 0), Replica) as server:
        server.daemon_threads = True
        server.first, server.then, server.paths = [], list(READY), []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(stack: Stack) -> Iterator[HTTPConnection]:
    """Return a connection to the stack."""
    client = HTTPConnection("127.0.0.1", stack.server_port, timeout=5)
    yield client
    client.close()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the sleeps by a list of their lengths."""
    noted: list[float] = []
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run the module in this process and return its result."""
    opened: list[HTTPConnection] = []

    class Noted(HTTPConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            opened.append(self)

    def run_module(requests: int = balance_check.REQUESTS, timeout: int = 5, **arguments: Any) -> dict[str, Any]:
        monkeypatch.setattr(balance_check, "REQUESTS", requests)
        monkeypatch.setattr(balance_check, "TIMEOUT_S", timeout)
        with patch_module_args(arguments), pytest.raises(SystemExit):
            balance_check.main()
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    monkeypatch.setattr(http.client, "HTTPConnection", Noted)
    yield run_module
    # The module leaves that to the end of its process.
    for client in opened:
        client.close()


def test_answers_are_counted(stack: Stack, run: Run) -> None:
    """The person sees the spread at the end of a run, and the number of replicas is compared with it."""
    stack.then = [*READY, READY[0]]
    said = run(url=f"http://127.0.0.1:{stack.server_port}/healthz", requests=8)
    assert said["spread"] == {"a": 4, "b": 2, "c": 2}
    assert said["changed"] is False
    assert stack.paths == ["/healthz"] * 8


def test_one_connection_is_kept(stack: Stack, run: Run) -> None:
    """Balancing has to work per request: a keep-alive client must not stick to one replica."""
    said = run(url=f"http://127.0.0.1:{stack.server_port}/", requests=6)
    assert len(said["spread"]) == 3
    assert stack.connections == 1


def test_thirty_requests_are_sent(stack: Stack, run: Run) -> None:
    """They are enough to reach every replica of a small stack."""
    assert run(url=f"http://127.0.0.1:{stack.server_port}/")["spread"] == {"a": 10, "b": 10, "c": 10}


@pytest.mark.parametrize("first", [NOT_READY, (404, "a"), (302, "")], ids=["503", "404", "302"])
def test_first_answer_is_waited_for(stack: Stack, connection: HTTPConnection, naps: list[float], first: Answer) -> None:
    """The service may have been started a moment ago."""
    stack.first = [first] * 3
    assert balance_check.wait_for_first(connection, "/", {}, 60) == "a"
    assert naps == [0.5] * 3


def test_service_that_begins_to_listen_is_waited_for(
    naps: list[float], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nginx itself is starting, nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        client = HTTPConnection("127.0.0.1", unused.getsockname()[1], timeout=5)

    def nap(seconds: float) -> None:
        naps.append(seconds)
        client.port = stack.server_port

    monkeypatch.setattr(time, "sleep", nap)
    assert balance_check.wait_for_first(client, "/", {}, 60) == "a"
    assert naps == [0.5]
    client.close()


@pytest.mark.usefixtures("naps")
def test_waiting_ends(stack: Stack, connection: HTTPConnection) -> None:
    """The last refusal is what the person has to see."""
    stack.then = [NOT_READY]
    with pytest.raises(ValueError, match="status 503"):
        balance_check.wait_for_first(connection, "/", {}, 0)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (NOT_READY, "status 503"),
        ((404, "a"), "status 404"),
        ((302, ""), "status 302"),
    ],
)
def test_one_bad_answer_among_good_ones_is_a_failure(stack: Stack, run: Run, answer: Answer, complaint: str) -> None:
    """After the first answer every failure counts: a service that answers nine times out of ten is broken."""
    stack.first = [READY[0], READY[1], answer]
    url = f"http://127.0.0.1:{stack.server_port}/healthz"
    said = run(url=url, requests=9)
    assert said["failed"] is True
    assert said["msg"].startswith(f"{url} did not answer as a replica: {complaint}")


def test_answer_without_a_name_is_counted_apart(stack: Stack, run: Run) -> None:
    """An image of other origin gives no name, so only its answers can be counted."""
    stack.then = [(200, "")]
    assert run(url=f"http://127.0.0.1:{stack.server_port}/healthz", requests=5)["spread"] == {"unnamed": 5}


def test_nobody_listening_is_a_failure(run: Run) -> None:
    """The module's sentence names the URL and is no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    said = run(url=f"http://127.0.0.1:{port}/healthz", timeout=0)
    assert said["failed"] is True
    assert f"http://127.0.0.1:{port}/healthz did not answer as a replica: " in said["msg"]


def test_ansible_runs_it(stack: Stack, tmp_path: Path) -> None:
    """Ansible finds the module and can run it."""
    url = f"http://127.0.0.1:{stack.server_port}/healthz"
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "--module-name=balance_check", "--check"]
    command += [f"--module-path={ROOT / 'roles/stack/library'}", f"--args=url={url}"]
    subprocess.run([*command, f"--tree={tmp_path}"], check=True, capture_output=True, timeout=600, cwd=tmp_path)
    assert json.loads((tmp_path / "localhost").read_text(encoding="utf-8"))["spread"] == {"a": 10, "b": 10, "c": 10}


def test_certificate_of_the_machine_is_the_only_one_accepted(stack: Stack, run: Run, tmp_path: Path) -> None:
    """It is checked by name, at an address that DNS need not have, so an old certificate that is still served fails."""
    mine, other = (self_signed(tmp_path, name) for name in ("www.fleet.test", "fleet.test"))
    stack.socket = serving(mine).wrap_socket(stack.socket, server_side=True)

    def ask(name: str, accepted: Path) -> dict[str, Any]:
        url = f"https://{name}:{stack.server_port}/"
        return run(url=url, address="127.0.0.1", certificate=accepted.read_text(), timeout=1)

    assert ask("www.fleet.test", mine)["spread"] == {"a": 10, "b": 10, "c": 10}
    assert "Hostname mismatch" in ask("fleet.test", mine)["msg"]
    assert "certificate verify failed" in ask("www.fleet.test", other)["msg"]
