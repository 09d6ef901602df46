"""The stack on this machine's own engine, as `make up` and `make down` run it, under its own name."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.playbook import Outcome

pytestmark = pytest.mark.docker

NAME = "test-local"


def free_ports(count: int) -> list[int]:
    """Find free ports of the loopback address."""
    with ExitStack() as kept:
        listeners = [kept.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def leftovers() -> str:
    """List what the engine has of the stack, except images."""
    kinds = (["ps", "--all"], ["network", "ls"], ["volume", "ls"])
    ours = ["--quiet", "--filter", f"label=com.docker.compose.project={NAME}"]
    return "".join(
        subprocess.run(["docker", *kind, *ours], capture_output=True, text=True, check=True).stdout for kind in kinds
    )


def test_stack_comes_stays_and_goes(tmp_path: Path) -> None:
    """The second run changes nothing, and at the end nothing is left."""
    port, https_port = free_ports(2)
    variables = {
        "stack_name": NAME,
        "stack_directory": str(tmp_path / "stack"),
        "stack_port": port,
        "stack_https_port": https_port,
    }
    arguments = ["--inventory", "inventories/local", "--extra-vars", json.dumps(variables)]
    try:
        first = Outcome(["ansible-playbook", "site.yml", *arguments])
        assert first.ok, first.said
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as answer:
            assert answer.status == 200
        second = Outcome(["ansible-playbook", "site.yml", *arguments])
        assert second.changed == {"localhost": 0}, second.said
        assert "TASK [" not in second.said, "a run that changes nothing names its phases alone"
    finally:
        down = Outcome(["ansible-playbook", "playbooks/down.yml", *arguments])
    assert down.ok, down.said
    assert leftovers() == ""
