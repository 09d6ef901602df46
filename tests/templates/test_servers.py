"""The application servers: what their configuration says, and that each of them does what the stack relies on.

The servers are real ones. They are started as in a container, but outside one, each with the file that a machine gets.
"""

import ast
import configparser
import contextlib
import http.client
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from bench.render import MANAGED, Renderer
from plugins.filter.routes import completed
from plugins.filter.sizes import sized
from plugins.lookup.project import servers
from tests.project import ROOT, SERVICE, load_mapping

PYTHON_IMAGE = ROOT / "files/images/python"
VARIABLES = load_mapping(ROOT / "roles/stack/vars/main.yml")
SERVERS = servers()
PATIENCE_S = 20
THREADS = 4
LATE_S = 3.5
"""After how long without a word a request is late; at least 6 s, unless a service is told a time below zero."""

APP = """
import logging, re, threading, time
from flask import Flask, request
app = Flask(__name__)

@app.get("/slow")
def slow():
    time.sleep(0.7)
    return "done"

@app.get("/late")
def late():
    time.sleep(2.5)
    return "late"

@app.get("/for-ever")
def for_ever():
    threading.Event().wait()

@app.get("/regex")
def regex():
    re.match("(a+)+$", "a" * 50 + "b")

@app.get("/log")
def log():
    logging.getLogger("shop").warning("sold out")
    return "logged"

@app.get("/who")
def who():
    return f"{request.remote_addr} {request.url} {request.environ['SERVER_PORT']}"

@app.get("/about/")
def about():
    return "about"

@app.get("/head/<int:size>")
def head(size):
    return "x", {f"X-{number}": "x" * 1000 for number in range(size // 1000)}

@app.get("/cookies")
def cookies():
    return str(sum(map(len, request.cookies.values())))

@app.post("/unread")
def unread():
    return "not wanted"

@app.get("/parts")
def parts():
    def make():
        for part in range(5):
            time.sleep(0.2)
            yield str(part)
    return make()
"""

each_server = pytest.mark.parametrize("server", SERVERS)


@pytest.fixture(scope="module")
def rendered(render: Renderer) -> Callable[..., str]:
    def text(server: str, service: dict[str, Any] | None = None, **variables: Any) -> str:
        (complete,) = sized(completed([SERVICE | {"server": server} | (service or {})], 0), 1, 950, "128m", 1)
        given = {"__stack_service": complete, "__stack_server": SERVERS[server], "stack_services": [complete]}
        return render("stack", SERVERS[server]["template"], **given | variables)

    return text


def settings(text: str) -> dict[str, Any]:
    """Read the settings of a configuration file in Python or INI."""
    if "[uwsgi]" in text:
        parser = configparser.ConfigParser(strict=False)
        parser.read_string(text)
        return dict(parser["uwsgi"])
    pairs: list[tuple[str, ast.expr]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign):
            pairs.append((ast.unparse(node.targets[0]), node.value))
        if isinstance(node, ast.keyword) and node.arg:
            pairs.append((node.arg, node.value))
    return {name: node.value if isinstance(node, ast.Constant) else ast.unparse(node) for name, node in pairs}


@each_server
def test_file_says_who_wrote_it_and_for_whom(rendered: Callable[..., str], server: str) -> None:
    text = rendered(server)
    assert text.startswith(f"#\n# {MANAGED}\n#\n")
    assert "serves app" in text
    assert "{{" not in text


@each_server
def test_threads_follow_from_the_limits_of_a_replica(rendered: Callable[..., str], server: str) -> None:
    name = "blocking_threads" if server == "granian" else "threads"
    found = [
        int(settings(rendered(server, {"memory": memory, "cpus": cpus}))[name])
        for memory, cpus in (("128m", "0.5"), ("512m", "2"), ("48m", "1"))
    ]
    assert found == [4, 8, 2]


IDLE_S = VARIABLES["__stack_keepalive_seconds"]


@pytest.mark.parametrize(
    ("server", "given", "name", "value"),
    [
        # A server that gives up requests in flight sooner loses them, and one that takes longer is killed.
        ("gunicorn", {"stack_stop_seconds": 42}, "graceful_timeout", 42),
        ("uwsgi", {"stack_stop_seconds": 42}, "worker-reload-mercy", 42),
        ("granian", {"stack_stop_seconds": 42}, "workers_kill_timeout", 42),
        # nginx closes idle connections first, because a request that meets a closing one is lost.
        ("gunicorn", {}, "keepalive", IDLE_S),
        ("granian", {}, "header_read_timeout", IDLE_S * 1000),
        # Gunicorn's time-out concerns its loop: one that is too short would end a worker on a busy machine.
        *(("gunicorn", {"timeout_seconds": one}, "timeout", max(one, 30)) for one in (1, 30, 120)),
        *(("uwsgi", {"timeout_seconds": one}, "socket-timeout", one) for one in (1, 30, 120)),
        # A full queue refuses connections.
        *(("uwsgi", {"stack_requests_per_replica": one}, "listen", max(one, 100)) for one in (1, 32, 1000)),
    ],
)
def test_setting_reaches_the_server(
    rendered: Callable[..., str], server: str, given: dict[str, int], name: str, value: int
) -> None:
    variables = {one: number for one, number in given.items() if one.startswith("stack_")}
    assert int(settings(rendered(server, given, **variables))[name]) == value
    assert IDLE_S > 60


def test_uwsgi_ends_no_request_for_being_late(rendered: Callable[..., str]) -> None:
    """With threads harakiri kills the requests of all of them, and SIGTERM must neither cut requests nor restart."""
    uwsgi = settings(rendered("uwsgi"))
    assert "harakiri" not in uwsgi
    assert "die-on-term" not in uwsgi
    assert uwsgi["hook-master-start"] == "unix_signal:15 gracefully_kill_them_all"


class Running:
    """A server with the app of this test, under ``drain``."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", ports: tuple[int, int], folder: Path, given: dict[str, str]
    ) -> None:
        self.process, self.environment = process, given
        self.port, self.uwsgi_port = ports
        self.log = folder / "log"

    def ask(self, path: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 (http, as written above)
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask_without_waiting(self, path: str, count: int) -> list[socket.socket]:
        """Send requests without reading their answers yet."""
        clients = [socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) for _ in range(count)]
        for client in clients:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        return clients

    def check(self) -> tuple[int, str]:
        """Run the health check as the engine does."""
        script, environment = str(PYTHON_IMAGE / "healthy"), {**self.environment, "PORT": str(self.port)}
        command = [script, "/healthz"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        return done.returncode, done.stdout

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                if self.ask("/readyz")[0] == 200:
                    return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return int(one.getsockname()[1]), int(other.getsockname()[1])


Rendered = Callable[..., str]


@contextlib.contextmanager
def started(folder: Path, rendered: Rendered, server: str, app: str = "shop:app") -> Iterator[Running]:
    """Start a server with the app of this test in a folder, and kill it afterwards."""
    (folder / "shop.py").write_text(APP, encoding="utf-8")
    port, uwsgi_port = free_ports()
    file = folder / "etc" / SERVERS[server]["file"]
    file.parent.mkdir()
    more = {"__stack_server": SERVERS[server] | {"protocol_port": uwsgi_port}}
    file.write_text(rendered(server, {"port": port}, **more), encoding="utf-8")
    command = [word.replace("{file}", str(file)) for word in SERVERS[server]["command"]]
    environment = {
        **os.environ,
        "APP": app,
        "DRAIN_FILE": str(folder / "draining"),
        "DRAIN_SECONDS": "0.3",
        "HANG_SECONDS": "1",
        "SILENCE_SECONDS": str(LATE_S - 6),
        # Debian's program has another name than that of the Python package.
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PYTHON_IMAGE),
        "SERVER_FILE": str(folder / "server"),
    }
    (folder / "uwsgi-core").symlink_to(Path(sys.executable).with_name("uwsgi"))
    whole = [str(PYTHON_IMAGE / "drain"), *command]
    how: dict[str, Any] = {"cwd": folder, "env": environment, "stderr": subprocess.STDOUT, "start_new_session": True}
    with (folder / "log").open("w") as output:
        process = subprocess.Popen(whole, stdout=output, **how)
    try:
        yield Running(process, (port, uwsgi_port), folder, environment)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def start(tmp_path: Path, rendered: Rendered) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a server, and waits until it serves."""
    with ExitStack() as running:

        def start_server(server: str, app: str = "shop:app") -> Running:
            made = running.enter_context(started(tmp_path, rendered, server, app))
            made.wait_until_ready()
            return made

        yield start_server


@pytest.fixture(scope="module", params=SERVERS)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rendered: Rendered
) -> Iterator[Running]:
    """Start each server once for the tests that only ask it something."""
    with started(tmp_path_factory.mktemp("server"), rendered, request.param) as made:
        made.wait_until_ready()
        yield made


@each_server
def test_stop_loses_no_request(start: Callable[..., Running], server: str) -> None:
    """It answers those under way, those that wait for a thread, and the rest of a streamed answer."""
    running = start(server)
    answers: list[tuple[int, str]] = []
    paths = ["/parts", *["/slow"] * (2 * THREADS)]
    clients = [threading.Thread(target=lambda path=path: answers.append(running.ask(path))) for path in paths]
    for client in clients:
        client.start()
    time.sleep(0.2)
    running.process.terminate()
    for client in clients:
        client.join()
    assert sorted(answers) == sorted([(200, "01234"), *[(200, "done")] * (2 * THREADS)])
    assert running.process.wait(PATIENCE_S) == 0, running.log.read_text()


def pids(running: Running) -> Iterator[int]:
    """List the server's processes, the worker last."""
    pid = int(running.log.with_name("server").read_text().split()[2])
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)


def assert_ended(running: Running) -> None:
    """Assert that the health check ends the server, after which the container would start it again."""
    code, said = running.check()
    assert (code, said.splitlines()[-1]) == (1, "healthy: ended the server")
    assert running.process.wait(PATIENCE_S) == 128 + signal.SIGKILL


@each_server
def test_server_is_ended_when_its_threads_are_lost_and_not_while_they_are_busy(
    start: Callable[..., Running], server: str
) -> None:
    """With all threads busy more requests wait and the health check gets no thread, yet all are answered."""
    running = start(server)
    assert running.check() == (0, "")
    with ExitStack() as clients:
        waiting = [
            clients.enter_context(client)
            for path, count in (("/late", THREADS), ("/slow", 2))
            for client in running.ask_without_waiting(path, count)
        ]
        code, said = running.check()
        assert (code, said.splitlines()[-1]) == (0, "healthy: its threads are at work")
        for client in waiting:
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
            # As nginx does; gunicorn waits two seconds for each that does not.
            client.close()
        assert running.check() == (0, "")
        for client in running.ask_without_waiting("/for-ever", THREADS):
            clients.enter_context(client)
        assert running.check()[0] == 0
        time.sleep(LATE_S)
        assert_ended(running)


def test_server_that_is_stopped_is_ended(start: Callable[..., Running]) -> None:
    """All its processes are stopped, the thread that counts its requests included, as in a frozen container."""
    running = start("gunicorn")
    assert running.check() == (0, "")
    master = int(running.log.with_name("server").read_text().split()[2])
    for pid in (master, *map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())):
        os.kill(pid, signal.SIGSTOP)
    assert_ended(running)


def test_server_whose_interpreter_is_held_is_ended(start: Callable[..., Running]) -> None:
    """A regular expression in C lets no other thread run, and uses too much CPU to be the victim of a busy machine."""
    running = start("gunicorn")
    assert running.check() == (0, "")
    with running.ask_without_waiting("/regex", 1)[0]:
        assert_ended(running)


@each_server
def test_app_that_is_not_there_ends_the_server_with_one_line(tmp_path: Path, rendered: Rendered, server: str) -> None:
    """The roll-out shows the last lines of the log, which a server that retries would fill with others."""
    with started(tmp_path, rendered, server, "shop:application") as running:
        assert running.process.wait(PATIENCE_S) != 0
    said = running.log.read_text()
    assert "app is 'shop:application': there is no application in the module shop" in said
    assert "Traceback" not in said


@each_server
def test_app_may_have_any_name(start: Callable[..., Running], server: str, tmp_path: Path) -> None:
    """An app's folder is on the path, with uWSGI before ours, and must not shadow what we import ourselves."""
    package = tmp_path / "fleet"
    package.mkdir()
    (package / "__init__.py").write_text(APP, encoding="utf-8")
    for file in (PYTHON_IMAGE / "_flask_fleet").glob("[!_]*.py"):
        # Only those that are not also names of Python's own.
        if file.stem not in sys.stdlib_module_names:
            (tmp_path / file.name).write_text("raise ImportError('the app was not asked for')\n", encoding="utf-8")
    for name in ("granian", "gunicorn", "uwsgi"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('the app was not asked for')\n", encoding="utf-8")
    running = start(server, "fleet:app")
    assert running.ask("/log") == (200, "logged")


def test_app_sees_the_client_and_not_the_proxy(running: Running) -> None:
    """When a client forges the header, the app believes only what nginx adds last."""
    forwarded = {
        "X-Forwarded-For": "203.0.113.1, 203.0.113.2",
        "X-Forwarded-Proto": "http, https",
        "X-Forwarded-Host": "one.example, two.example",
    }
    assert running.ask("/who", headers=forwarded) == (200, "203.0.113.2 https://two.example/who 443")


@pytest.mark.parametrize(
    ("scheme", "host", "port"),
    [
        ("http", "localhost:7151", "7151"),
        ("https", "localhost:7154", "7154"),
        ("http", "localhost", "80"),
        ("https", "[::1]", "443"),
        ("https", "[::1]:7154", "7154"),
    ],
)
def test_app_sees_the_port_of_the_client(running: Running, scheme: str, host: str, port: str) -> None:
    headers = {"Host": host, "X-Forwarded-For": "::1", "X-Forwarded-Proto": scheme, "X-Forwarded-Host": host}
    assert running.ask("/who", headers=headers) == (200, f"::1 {scheme}://{host}/who {port}")
    with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", "/about", headers=headers)
        assert connection.getresponse().headers["Location"] == f"{scheme}://{host}/about/"


def test_server_takes_and_gives_headers_as_large_as_nginx_passes(running: Running) -> None:
    """No server refuses a longer line, more headers, or all cookies in one, if nginx lets it through."""
    assert running.ask("/who?" + "q" * (VARIABLES["__stack_uri_bytes"] - 5))[0] == 200
    lines = {f"X-{number}": "x" for number in range(VARIABLES["__stack_headers_most"] + 7 - 4)}
    # urllib adds four.
    assert running.ask("/who", headers=lines)[0] == 200
    size = VARIABLES["__stack_headers_kib"] * 1024
    assert running.ask("/cookies", headers={"Cookie": "c=" + "x" * (size - 10)}) == (200, str(size - 10))
    assert running.ask(f"/head/{size}") == (200, "x")


def test_log_names_the_request(running: Running) -> None:
    assert running.ask("/log", headers={"X-Request-ID": "0123abcd"}) == (200, "logged")
    assert re.search(r"^\S+T\S+Z WARNING 0123abcd shop: sold out$", running.log.read_text(), re.MULTILINE)


def test_answer_arrives_although_the_body_is_not_read(running: Running) -> None:
    """A server that closes the connection with a body unread resets it, and nginx would say 502."""
    assert [running.ask("/unread", b"x" * size) for size in (1000, 200_000, 20 * 2**20)] == [(200, "not wanted")] * 3


def packet(path: str, size: int) -> bytes:
    """Write a POST as nginx does for uWSGI."""
    variables = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "REQUEST_URI": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "80",
        "CONTENT_LENGTH": str(size),
        # As large as nginx lets through.
        "HTTP_COOKIE": "c" * 32_000,
    }
    parts = [part.encode() for pair in variables.items() for part in pair]
    content = b"".join(struct.pack("<H", len(part)) + part for part in parts)
    return struct.pack("<BHB", 0, len(content), 0) + content


def test_uwsgi_speaks_its_own_protocol(start: Callable[..., Running]) -> None:
    running = start("uwsgi")
    with socket.create_connection(("127.0.0.1", running.uwsgi_port), timeout=PATIENCE_S) as connection:
        connection.sendall(packet("/unread", 200_000) + b"x" * 200_000)
        with connection.makefile("rb") as answer:
            lines = answer.read().split(b"\r\n")
    assert (lines[0], lines[-1]) == (b"HTTP/1.1 200 OK", b"not wanted")
