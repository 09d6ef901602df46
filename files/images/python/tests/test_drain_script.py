"""`drain`: a replica turns not ready, keeps serving, stops; and ends with its server's exit status.

Each test runs the real script with a real small server process; no Docker needed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DRAIN = Path(__file__).resolve().parent.parent / "drain"
DRAIN_SECONDS = 1.0
PATIENCE_SECONDS = 10

# Answers requests until SIGTERM, then ends with status 0, as gunicorn does.
SERVER = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""

SIGNALS_AS_IN_A_CONTAINER = ["env", "--default-signal=INT"]
"""A shell cannot trap a signal that its parent ignores, as a test run in the background does with SIGINT."""

StartDrain = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def drain_file(tmp_path: Path) -> Path:
    """Name the file that means "not ready"."""
    return tmp_path / "draining"


@pytest.fixture
def start(drain_file: Path) -> Iterator[StartDrain]:
    """Start `drain` with some server; whatever still runs after the test is killed, its children too."""
    started: list[subprocess.Popen[str]] = []

    def start_drain(*server: str, seconds: str = str(DRAIN_SECONDS)) -> "subprocess.Popen[str]":
        environment = os.environ | {
            "DRAIN_FILE": str(drain_file),
            "SERVER_FILE": str(drain_file.with_name("server")),
            "DRAIN_SECONDS": seconds,
        }
        process = subprocess.Popen(
            [*SIGNALS_AS_IN_A_CONTAINER, str(DRAIN), *server],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_drain
    for process in started:
        # The group is gone when the test itself ended all of it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def port() -> int:
    """Find a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Tell whether the server answers a new connection."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens soon."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def start_server(start: StartDrain, port: int) -> "subprocess.Popen[str]":
    """Start the small server under `drain` and wait until it answers."""
    process = start(sys.executable, "-c", SERVER, str(port))
    wait_until(lambda: answers(port))
    return process


@pytest.mark.parametrize("first_signal", [signal.SIGTERM, signal.SIGINT])
def test_stop_is_not_ready_then_serving_then_stopped(
    start: StartDrain, drain_file: Path, port: int, first_signal: signal.Signals
) -> None:
    """After the signal the balancer has the whole drain time to notice, and no request of it is lost."""
    process = start_server(start, port)
    assert not drain_file.exists()

    process.send_signal(first_signal)
    asked_at = time.monotonic()
    wait_until(drain_file.exists)
    while time.monotonic() < asked_at + DRAIN_SECONDS * 0.8:
        assert answers(port)
        assert process.poll() is None
        time.sleep(0.05)

    assert process.wait(PATIENCE_SECONDS) == 0
    assert time.monotonic() - asked_at >= DRAIN_SECONDS
    assert not answers(port)


# Takes a connection every half second, and at SIGTERM those that wait are reset, as by uWSGI.
SLOW_SERVER = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        time.sleep(0.5)
        connection = listener.accept()[0]
        connection.sendall(b"served")
        connection.close()
"""


def test_connection_that_waits_is_served_before_the_stop(start: StartDrain, port: int) -> None:
    """What the balancer sent before it noticed the drain is not lost."""
    process = start(sys.executable, "-c", SLOW_SERVER, str(port), seconds="0.2")
    waiting: list[socket.socket] = []

    def connect() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            waiting.append(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS))
        return len(waiting) == 4

    wait_until(connect)
    process.terminate()
    for client in waiting:
        with client:
            assert client.recv(16) == b"served"
    assert process.wait(PATIENCE_SECONDS) == 0


def test_more_signals_neither_shorten_nor_break_the_drain(start: StartDrain, drain_file: Path, port: int) -> None:
    """Impatient people and orchestrators send SIGTERM again."""
    process = start_server(start, port)
    process.terminate()
    asked_at = time.monotonic()
    wait_until(drain_file.exists)
    for _ in range(3):
        process.terminate()
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        assert answers(port)

    assert process.wait(PATIENCE_SECONDS) == 0
    assert DRAIN_SECONDS <= time.monotonic() - asked_at < DRAIN_SECONDS + 5


@pytest.mark.parametrize("status", [0, 3])
def test_server_that_ends_by_itself_ends_the_container(start: StartDrain, drain_file: Path, status: int) -> None:
    """A restart policy acts only when the container ends; draining would just lengthen the outage."""
    process = start(sys.executable, "-c", f"raise SystemExit({status})", seconds="60")
    assert process.wait(PATIENCE_SECONDS) == status
    assert not drain_file.exists()


def test_killed_server_is_reported_as_killed(start: StartDrain) -> None:
    """A server killed for lack of memory gives 137, as it would without `drain`."""
    process = start("sh", "-c", "kill -KILL $$", seconds="60")
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGKILL


def test_server_that_dies_while_draining_is_noticed_at_once(start: StartDrain, drain_file: Path) -> None:
    """Nothing is left to drain then."""
    process = start("sh", "-c", f"until [ -e '{drain_file}' ]; do sleep 0.05; done; exit 5", seconds="60")
    time.sleep(0.2)
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 5


def test_stale_file_of_an_earlier_run_is_removed(start: StartDrain, drain_file: Path, port: int) -> None:
    """Otherwise a container that was restarted would stay not ready for ever."""
    drain_file.touch()
    start_server(start, port)
    assert not drain_file.exists()


def test_health_check_is_told_which_process_is_the_server(start: StartDrain, drain_file: Path, port: int) -> None:
    """Each run says anew that it was healthy: what an earlier one left is no reason to end this one."""
    known = drain_file.with_name("server.healthy")
    known.touch()
    process = start_server(start, port)
    parent, drain, server = map(int, drain_file.with_name("server").read_text().split())
    assert (parent, drain) == (os.getpid(), process.pid)
    assert not known.exists()
    os.kill(server, signal.SIGKILL)
    assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGKILL


def test_server_that_does_not_exist_is_reported(start: StartDrain) -> None:
    """The status is the shell's own for a missing command, and the container's log has the reason."""
    process = start("no-such-server")
    assert process.wait(PATIENCE_SECONDS) == 127
    assert process.stderr is not None
    assert "no-such-server" in process.stderr.read()


@pytest.mark.parametrize("seconds", ["", "soon", "-1", "1.2.3", "."])
def test_wrong_drain_time_is_refused(start: StartDrain, seconds: str) -> None:
    """A wrong value is found at the start, not at the first stop."""
    process = start("true", seconds=seconds)
    assert process.stderr is not None
    # An empty value means the default, as an unset one does.
    expected = (0, "") if seconds == "" else (64, f"drain: DRAIN_SECONDS is '{seconds}'")
    assert process.wait(PATIENCE_SECONDS) == expected[0]
    assert process.stderr.read().startswith(expected[1])


def test_no_server_is_refused(start: StartDrain) -> None:
    """An image without CMD says what is missing."""
    assert start().wait(PATIENCE_SECONDS) == 64
