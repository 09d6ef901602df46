"""A port that nginx cannot have is found before anything is built."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.modules.free_ports import port_problem
from tests.preflight.input import free_port
from tests.project import ROOT


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker client first on the PATH that prints a file and records its calls."""
    client = tmp_path / "bin/docker"
    client.parent.mkdir()
    script = f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/shown\n. {tmp_path}/fails\n'
    client.write_text(script, encoding="utf-8")
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "shown").touch()
    (tmp_path / "fails").touch()
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("listens_on", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - the case under test
def test_port_of_somebody_else_is_refused(listens_on: str) -> None:
    """Compose would find out after the images are built, and with a message about an endpoint."""
    with socket.create_server((listens_on, 0)) as listener:
        port = listener.getsockname()[1]
        assert port_problem("127.0.0.1", port, "flask-fleet") == (
            f"stack_port is {port}: something else listens on 127.0.0.1:{port}; allowed is a free port"
        )


def test_port_of_our_own_stack_is_allowed(docker: Path) -> None:
    """A second run finds its own nginx on the port."""
    (docker / "shown").write_text("0123456789ab\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert port_problem("127.0.0.1", port, "mine") is None
    asked = (docker / "asked").read_text(encoding="utf-8")
    assert f"publish={port}" in asked
    assert "com.docker.compose.project=mine" in asked


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", False),
        ("permission denied while trying to connect to the Docker daemon socket", True),
        ("Got permission denied while trying to connect to the Docker daemon socket", True),
    ],
)
def test_port_is_our_own_only_where_an_engine_runs(docker: Path, error: str, ours: bool) -> None:
    """A stopped engine once made every port in use look like the project's own."""
    (docker / "fails").write_text(f"echo '{error}' >&2\nexit 1\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert (port_problem("127.0.0.1", listener.getsockname()[1], "mine") is None) is ours


def test_free_port_is_allowed_without_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without an engine gets one from the docker role."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert port_problem("127.0.0.1", free_port(), "flask-fleet") is None


def test_address_of_another_machine_is_refused() -> None:
    """The port is not the mistake; addresses of TEST-NET-1 belong to nobody."""
    for address in ("192.0.2.1", "no-such-host.invalid"):
        assert port_problem(address, free_port(), "flask-fleet") == (
            f"stack_address is {address!r}: this machine has no such address; allowed is one that it has"
        )


def test_port_that_only_root_may_bind_is_left_to_the_engine() -> None:
    """Such a port used to be called taken, but the engine runs as root, whoever calls it."""
    if os.geteuid() != 0:
        assert port_problem("127.0.0.1", 1, "x") is None
        return
    script = (
        "import os, encodings.idna; from plugins.modules.free_ports import port_problem; os.setuid(65534); "
        "print(port_problem('127.0.0.1', 1, 'x'))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "None"
