"""Somebody outside, who asks a machine from addresses of his own, past the rehearsal's security groups."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import Any

from rehearsal import docker
from rehearsal.rules import OWN_MARK

SCAN = """
import errno, json, select, socket, sys, time
address, ports, patience, source, mark = json.load(sys.stdin)
family, _, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
found = []
for first in range(0, len(ports), 10000):
    asked, poll = {}, select.epoll()
    for port in ports[first : first + 10000]:
        one = socket.socket(family)
        one.setblocking(False)
        if mark:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source and family == socket.AF_INET:
            one.bind((source, 0))
        if one.connect_ex((place[0], port, *place[2:])) in (0, errno.EINPROGRESS):
            asked[one.fileno()] = one, port
            poll.register(one, select.EPOLLOUT)
    end = time.monotonic() + patience
    while asked and time.monotonic() < end:
        for number, _ in poll.poll(max(0, end - time.monotonic())):
            one, port = asked.pop(number)
            if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                found.append(port)
            one.close()
    for one, _ in asked.values():
        one.close()
print(json.dumps(sorted(found)))
"""
"""Python for any machine: asks TCP ports for an answer, 10,000 at a time, and prints those that gave one."""

PATIENCE_S = 2
"""How long a port may take to answer; what a packet filter drops costs all of it."""

COMMAND_S = 60
"""How long a command may take."""

KNOWN = "10.255.77.77"
"""An address that SSH is open for as shipped, and that nobody else has."""

STRANGER = "192.0.2.77"
"""An address for documentation (RFC 5737): nobody has it, and no list of allowed ones has it."""

TABLE = "7777"
"""Routing table for what comes from the known address only."""


def question(address: str, ports: Iterable[int], source: str = "", mark: int = 0) -> str:
    """Write what the scan reads.

    Args:
        address: Whom to ask.
        ports: Which ports.
        source: From which address; empty for any.
        mark: Mark on the packets, which needs a right of its own.

    Returns:
        JSON.
    """
    return json.dumps([address, list(ports), PATIENCE_S, source, mark])


class Outsider:
    """A container on the controller's network, with two addresses that only it uses and an SSH key of its own."""

    def __init__(self, instance_id: str) -> None:
        """Start it.

        Args:
            instance_id: An instance, whose image and bridge it needs to know.
        """
        (machine,) = docker.run("ps", "--filter", f"name=-{instance_id}$", "--format", "{{.Names}}").split()
        seen: dict[str, Any] = json.loads(docker.run("container", "inspect", machine))[0]
        (network,) = seen["NetworkSettings"]["Networks"]
        options = json.loads(docker.run("network", "inspect", network))[0]["Options"]
        self.bridge = str(options["com.docker.network.bridge.name"])
        self.container = docker.run(
            *("run", "--detach", "--rm", "--init", "--network=host", "--cap-add=NET_ADMIN", "--entrypoint=sleep"),
            *(seen["Config"]["Image"], "infinity"),
        ).strip()
        for address in (KNOWN, STRANGER):
            self.run(f"ip address replace {address}/32 dev lo")
        self.run("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        self.public_key = self.run("cat /root/.ssh/id_ed25519.pub").stdout.strip()

    def run(self, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command there.

        Args:
            command: For a shell.
            stdin: What it reads.

        Returns:
            Exit status, stdout and stderr.
        """
        full = ["docker", "exec", "--interactive", self.container, "sh", "-c", command]
        return subprocess.run(full, input=stdin, capture_output=True, check=False, text=True, timeout=COMMAND_S)

    def open_ports(self, address: str, ports: Iterable[int], source: str = KNOWN) -> set[int]:
        """Ask which ports answer, whatever the security groups say.

        Args:
            address: Whom to ask.
            ports: Which ones.
            source: From which address.

        Returns:
            Those that took a connection.
        """
        answer = self.run(f"exec python3 -c '{SCAN}'", question(address, ports, source, OWN_MARK))
        assert answer.returncode == 0, answer.stderr
        return set(json.loads(answer.stdout))

    def route(self, address: str, router: str) -> None:
        """Reach an address through a machine, for packets from the known address only.

        Args:
            address: Where to.
            router: Through whom.
        """
        self.run(f"ip rule add from {KNOWN} table {TABLE}; ip route replace {address}/32 via {router} table {TABLE}")

    def ssh(
        self, login: str, command: str, options: str = "", environment: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Log in from the known address.

        Args:
            login: As ``user@address``.
            command: What to run there.
            options: Further options of ``ssh``.
            environment: Variables for ``ssh``, as a shell writes them.

        Returns:
            Exit status, stdout and stderr.
        """
        fixed = f"-b {KNOWN} -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5"
        return self.run(f"{environment} ssh {fixed} {options} {login} {command}")

    def leave(self) -> None:
        """Remove it, with its addresses and routes."""
        self.run(f"ip rule del table {TABLE}; ip route flush table {TABLE}")
        for address in (KNOWN, STRANGER):
            self.run(f"ip address delete {address}/32 dev lo")
        docker.attempt("rm", "--force", self.container)
