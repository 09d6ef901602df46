"""Which ports answer from outside and from a container, without a security group: the machine's own filter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host

from bench.playbook import playbook
from bench.stack import Stack
from tests.live_outsider import NETWORK, STRANGER, Outsider, scan

EVERY_PORT = range(1, 65536)
SSH_PORT = 22
WEB_PORTS = {80, 443}
BY_HAND = "by-hand"
BY_HAND_PORT = 8080
IPV6_PORT = 8081
METADATA = "169.254.169.254"


@pytest.fixture(scope="module")
def public(stack: Stack) -> set[int]:
    """Return the ports that are meant to be public: those where nginx is published."""
    (nginx,) = stack.inspect("nginx")
    ports = {int(one["HostPort"]) for where in nginx["NetworkSettings"]["Ports"].values() for one in where or []}
    assert ports
    assert ports <= WEB_PORTS
    return ports


@pytest.fixture(scope="module")
def by_hand(host: Host, stack: Stack) -> Iterator[None]:
    """Publish a port with ``docker run -p``, as people do in a hurry."""
    image = stack.inspect("app")[0]["Config"]["Image"]
    server = f"python3 {image} -m http.server {BY_HAND_PORT}"
    host.check_output(f"docker run -d --rm --name {BY_HAND} -p {BY_HAND_PORT}:{BY_HAND_PORT} --entrypoint {server}")
    stack.wait_for("the container serves", lambda: host.run(f"curl -sf http://127.0.0.1:{BY_HAND_PORT}/").rc == 0)
    yield
    host.run(f"docker rm --force {BY_HAND}")


@contextmanager
def _no_firewall(host: Host) -> Iterator[None]:
    """Stop the firewall during a block, which shows that what a test asks for would answer without it."""
    host.check_output("systemctl stop firewall")
    try:
        yield
    finally:
        host.check_output("systemctl start firewall")


def _scan_from_a_container(host: Host, stack: Stack, address: str, *ports: int) -> set[int]:
    image = stack.inspect("app")[0]["Config"]["Image"]
    return set(json.loads(host.check_output(f"docker run --rm --entrypoint python3 {image} {scan(address, ports)}")))


def test_only_the_intended_ports_answer(outsider: Outsider, stack: Stack, public: set[int]) -> None:
    """All 65,535 TCP ports are asked."""
    assert outsider.open_ports(stack.address, EVERY_PORT) == public | {SSH_PORT}


@pytest.mark.usefixtures("by_hand")
def test_a_port_published_by_hand_stays_closed(host: Host, outsider: Outsider, stack: Stack) -> None:
    """Docker's rules come before those of ufw and the like; without our firewall the port answers."""
    with _no_firewall(host):
        assert outsider.open_ports(stack.address, [BY_HAND_PORT]) == {BY_HAND_PORT}
    assert outsider.open_ports(stack.address, [BY_HAND_PORT]) == set()


@pytest.mark.long
@pytest.mark.usefixtures("by_hand")
def test_containers_are_not_reached_round_the_machine(host: Host, outsider: Outsider) -> None:
    """A neighbour on the same network can use the machine as a router to a container's address."""
    (seen,) = json.loads(host.check_output(f"docker inspect {BY_HAND}"))
    address = seen["NetworkSettings"]["IPAddress"]
    with _no_firewall(host):
        assert outsider.open_ports(address, [BY_HAND_PORT]) == {BY_HAND_PORT}
    assert outsider.open_ports(address, [BY_HAND_PORT]) == set()


def test_the_security_group_alone_says_who_reaches_ssh(outsider: Outsider, stack: Stack, public: set[int]) -> None:
    """A list on the machine could be changed over SSH only, and would lock out an owner whose address changed."""
    asked = [*WEB_PORTS, SSH_PORT, BY_HAND_PORT]
    assert outsider.open_ports(stack.address, asked, STRANGER) == public | {SSH_PORT}


@pytest.mark.long
def test_a_machine_without_a_security_group_can_have_a_list(
    host: Host, outsider: Outsider, stack: Stack, public: set[int]
) -> None:
    """The same outsider asks twice, once from an address that is not on the list."""
    listed = json.dumps({"firewall_ssh_cidrs": ["10.0.0.0/8"]})
    before = host.check_output("cat /etc/firewall.nft")
    try:
        configured = playbook("playbooks/configure.yml", "--tags", "firewall", "--extra-vars", listed)
        assert configured.ok, configured.said
        assert outsider.open_ports(stack.address, [*WEB_PORTS, SSH_PORT]) == public | {SSH_PORT}
        assert outsider.open_ports(stack.address, [*WEB_PORTS, SSH_PORT], STRANGER) == public
    finally:
        host.check_output(f"cat > /etc/firewall.nft << 'EOF'\n{before}\nEOF")
        host.check_output("systemctl reload firewall")


@pytest.mark.long
def test_ipv6_is_no_way_round(host: Host, outsider: Outsider, stack: Stack) -> None:
    """A filter for IPv4 alone would leave every port open over IPv6."""
    wanted = f"ip -6 -json address show dev {NETWORK} scope link"
    place = json.loads(host.check_output(wanted))[0]["addr_info"][0]["local"] + "%cable"
    asked = [*WEB_PORTS, SSH_PORT, IPV6_PORT]
    host.check_output(f"systemd-run --unit={BY_HAND} --collect python3 -m http.server {IPV6_PORT} --bind ::")
    try:
        stack.wait_for("the server serves", lambda: host.run(f"curl -sf http://127.0.0.1:{IPV6_PORT}/").rc == 0)
        with _no_firewall(host):
            assert IPV6_PORT in outsider.open_ports(place, asked, "")
        assert outsider.open_ports(place, asked, "") == {SSH_PORT}
    finally:
        host.check_output(f"systemctl stop {BY_HAND}")


@pytest.mark.long
def test_a_container_reaches_of_the_machine_only_what_is_public(host: Host, stack: Stack, public: set[int]) -> None:
    """An intruder in a container must not reach sshd or the credentials of the machine's role."""
    asked = [*WEB_PORTS, SSH_PORT]
    with _no_firewall(host):
        assert SSH_PORT in _scan_from_a_container(host, stack, stack.address, *asked)
    assert _scan_from_a_container(host, stack, stack.address, *asked) <= public
    assert _scan_from_a_container(host, stack, METADATA, 80) == set()


@pytest.mark.long
@pytest.mark.usefixtures("by_hand")
def test_the_same_ports_answer_after_the_engine_restarted(
    host: Host, outsider: Outsider, stack: Stack, public: set[int]
) -> None:
    """A restarted engine writes its rules again, before everybody else's."""
    host.check_output("systemctl restart docker")
    assert outsider.open_ports(stack.address, EVERY_PORT) == public | {SSH_PORT}
    assert _scan_from_a_container(host, stack, stack.address, *WEB_PORTS, SSH_PORT) <= public


def test_there_is_no_moment_with_a_network_and_without_a_filter(host: Host) -> None:
    """The first test here shows the filter after a reboot, because the scenario `default` ends with one."""
    assert host.service("firewall").is_enabled
    assert "network-pre.target" in host.check_output("systemctl show --property Before --value firewall.service")
