"""An outsider: a network of its own, joined to the machine by one virtual cable, with no security group in between."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from testinfra.backend.base import CommandResult
from testinfra.host import Host

SCAN = """
import errno, json, resource, select, socket, sys, time
address, ranges, patience, source = json.loads(sys.argv[1])
ports = [port for first, last in ranges for port in range(first, last + 1)]
family, _, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
batch = min(most - 50, 10000)
found = []
for first in range(0, len(ports), batch):
    asked, poll = {}, select.epoll()
    for port in ports[first : first + batch]:
        one = socket.socket(family)
        one.setblocking(False)
        if source:
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
"""Python for any machine: asks TCP ports for an answer, at most 10,000 at a time, and prints those that gave one."""

PATIENCE_S = 2
"""How long a port may take to answer; what a packet filter drops costs all of it."""

NETWORK = "outside"
ROUTER = "10.255.77.1"
"""The machine's end of the cable."""

KNOWN = "10.255.77.77"
"""A private address."""

STRANGER = "192.0.2.77"
"""A public address, of those for documentation (RFC 5737)."""

KEY = "/run/outside-key"


def _ranges(ports: Sequence[int]) -> list[tuple[int, int]]:
    """Write ports as ranges, because a long list would not fit on a command line."""
    return [(ports[0], ports[-1])] if isinstance(ports, range) else [(port, port) for port in ports]


def scan(address: str, ports: Sequence[int], source: str = "") -> str:
    """Write the arguments of Python that scan TCP ports and print a list of those that answer.

    They are quoted for a shell. ``source`` is the address to ask from; empty for any.
    """
    asked = json.dumps([address, _ranges(ports), PATIENCE_S, source])
    return f"-c {shlex.quote(SCAN)} {shlex.quote(asked)}"


class Outsider:
    """A network namespace on the machine with two addresses, whose packets look to the machine like somebody else's."""

    def __init__(self, host: Host) -> None:
        """Make the network namespace on the machine, in the place of one that an earlier run left."""
        self.host = host
        inside = f"ip -n {NETWORK}"
        host.check_output(
            f"ip netns delete {NETWORK} 2>/dev/null; ip netns add {NETWORK}"
            f" && ip link add {NETWORK} type veth peer name cable netns {NETWORK}"
            f" && ip address add {ROUTER}/24 dev {NETWORK} && ip link set {NETWORK} up"
            f" && {inside} address add {KNOWN}/24 dev cable && {inside} address add {STRANGER}/32 dev cable"
            f" && sysctl -qw net.ipv6.conf.{NETWORK}.disable_ipv6=0 net.ipv6.conf.{NETWORK}.accept_dad=0"
            f" && ip netns exec {NETWORK} sysctl -qw net.ipv6.conf.cable.disable_ipv6=0"
            f" && {inside} link set cable up && {inside} route add default via {ROUTER}"
            f" && ip route add {STRANGER} dev {NETWORK}"
            f" && rm -f {KEY} {KEY}.pub && ssh-keygen -q -t ed25519 -N '' -f {KEY}"
        )
        self.public_key: str = host.check_output(f"cat {KEY}.pub")

    def run(self, command: str) -> CommandResult:
        """Run a shell command in the namespace."""
        return self.host.run(f"ip netns exec {NETWORK} {command}")

    def open_ports(self, address: str, ports: Sequence[int], source: str = KNOWN) -> set[int]:
        """Return the ports that took a connection from ``source``; an empty source is any address."""
        answer = self.run(f"python3 {scan(address, ports, source)}")
        assert answer.rc == 0, answer.stderr
        return set(json.loads(answer.stdout))

    def ssh(self, login: str, command: str, options: str = "", program: str = "ssh") -> CommandResult:
        """Log in as ``user@address`` from the known address, and run a command there.

        ``program`` is the command that starts ``ssh``. The exit status is 1 for every failure.
        """
        fixed = f"-i {KEY} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5"
        # From 255 the harness, which comes over SSH itself, would conclude that its own connection failed.
        return self.run(f"{program} {fixed} {options} {login} {command} || exit 1")

    def leave(self) -> None:
        """Remove the namespace; its end of the cable goes with it."""
        self.host.run(f"ip netns delete {NETWORK}; rm -f {KEY} {KEY}.pub")
