"""Security groups decide which packets reach an instance."""

from __future__ import annotations

import socket
import subprocess
from functools import partial

import pytest

from tests.rehearsal.live.conftest import NAME, NET_CLOSED, Lab, rule, until

pytestmark = pytest.mark.docker

NESTED = """set -e
ip netns add box
ip link add out type veth peer name eth0 netns box
ip address add 172.17.0.1/16 dev out
ip link set out up
ip netns exec box ip address add 172.17.0.2/16 dev eth0
ip netns exec box ip link set eth0 up
ip netns exec box ip route add default via 172.17.0.1
sysctl --quiet net.ipv4.ip_forward=1
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:8000
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o out -j MASQUERADE
systemd-run --quiet ip netns exec box python3 -m http.server 8000
"""
"""A container's network, as Docker makes it."""

LISTEN = "systemd-run --quiet --unit=web{port} python3 -m http.server {port}"


def serve(lab: Lab, instance: str, *ports: int) -> None:
    """Let an instance listen on a port."""
    for port in ports:
        lab.inside(instance, LISTEN.format(port=port))
        assert until(partial(lab.open, "127.0.0.1", port, source=instance))


def test_only_what_a_group_opens_answers(lab: Lab) -> None:
    """Nothing answers at first; one port then opens at once for one source, and closes at once."""
    web = lab.group("web")
    instance = lab.run(SecurityGroupIds=[web])
    other = lab.run(SecurityGroupIds=[web])
    address = lab.address(instance)
    serve(lab, instance, 80, 81)
    assert not lab.open(address, 80)
    assert not lab.open(address, 22)
    assert not lab.open(address, 80, source=other)

    lab.ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[rule(80, "10.93.0.1/32")])
    assert lab.open(address, 80)
    assert not lab.open(address, 81)
    assert not lab.open(address, 80, source=other)

    lab.ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[rule(81, group=web)])
    assert lab.open(address, 81, source=other)
    assert not lab.open(address, 81)

    lab.ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=[rule(80, "10.93.0.1/32")])
    assert not lab.open(address, 80)


def test_connection_outlives_its_rule(lab: Lab) -> None:
    """AWS tracks connections, so the end of a rule does not cut an SSH session."""
    group = lab.group("ssh", rule(22, "10.0.0.0/8"))
    instance = lab.run(SecurityGroupIds=[group])
    with socket.create_connection((lab.address(instance), 22), timeout=5) as connection:
        assert connection.recv(4) == b"SSH-"
        lab.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule(22, "10.0.0.0/8")])
        connection.sendall(b"SSH-2.0-test\r\n")
        assert connection.recv(100)
        assert not lab.open(lab.address(instance), 22)


def test_controller_behind_a_nat_changes_its_address(lab: Lab) -> None:
    """Instances see and rules name the outer address, and an open connection does not survive its change."""
    group = lab.group("home", rule(22, "203.0.113.7/32"))
    instance = lab.run(SecurityGroupIds=[group])
    address = lab.address(instance)
    assert not lab.open(address, 22)
    lab.command("up", "--controller-address", "203.0.113.7")
    try:
        with socket.create_connection((address, 22), timeout=5) as connection:
            assert connection.recv(4) == b"SSH-"
            seen = lab.inside(instance, "ss --no-header --tcp --numeric state established sport = :22")
            assert "203.0.113.7:" in seen
            # What it asks of others itself is no business of that router.
            lab.inside(instance, "timeout 60 apt-get --quiet update")
            lab.command("up", "--controller-address", "203.0.113.8")
            connection.settimeout(NET_CLOSED)
            connection.sendall(b"SSH-2.0-test\r\n")
            with pytest.raises(TimeoutError):
                list(iter(partial(connection.recv, 1000), b""))
        assert not lab.open(address, 22)
        lab.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule(22, "203.0.113.8/32")])
        assert lab.open(address, 22)
    finally:
        lab.command("up", "--controller-address", "")


def test_groups_of_an_instance_can_be_exchanged(lab: Lab) -> None:
    """ModifyInstanceAttribute acts at once, also on what instances may send."""
    shut, door = lab.group("shut"), lab.group("door", rule(22, "0.0.0.0/0"))
    instance, other = lab.run(SecurityGroupIds=[shut]), lab.run(SecurityGroupIds=[door])
    assert not lab.open(lab.address(instance), 22)
    lab.ec2.modify_instance_attribute(InstanceId=instance, Groups=[door])
    assert lab.open(lab.address(instance), 22)
    assert lab.open(lab.address(other), 22, source=instance)
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    lab.ec2.revoke_security_group_egress(GroupId=door, IpPermissions=[everything])
    assert not lab.open(lab.address(other), 22, source=instance)
    assert lab.open(lab.address(instance), 22)
    lab.ec2.modify_instance_attribute(InstanceId=instance, Groups=[shut])
    assert not lab.open(lab.address(instance), 22)


def test_root_inside_cannot_open_a_port(lab: Lab) -> None:
    """The filter is outside of the instance."""
    instance = lab.run(SecurityGroupIds=[lab.group("locked")])
    lab.inside(instance, "for table in filter nat mangle raw; do iptables -t $table -F; done")
    assert not lab.open(lab.address(instance), 22)


def test_elastic_ip_is_filtered_and_ping_is_a_rule(lab: Lab) -> None:
    """An Elastic IP leads to the same machine, and rules for ICMP have types instead of ports."""
    group = lab.group("ping", rule(22, "0.0.0.0/0"))
    instance = lab.run(SecurityGroupIds=[group])
    allocated = lab.ec2.allocate_address(Domain="vpc")
    lab.ec2.associate_address(AllocationId=allocated["AllocationId"], InstanceId=instance)
    address = allocated["PublicIp"]
    assert lab.open(address, 22)
    other = lab.run(SecurityGroupIds=[group])
    ping = f"ping -c1 -W1 {address} > /dev/null && echo answers || true"
    assert lab.inside(other, ping) == ""
    permission = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    lab.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    assert lab.inside(other, ping) == "answers"
    lab.ec2.release_address(AllocationId=allocated["AllocationId"])


def test_default_group_opens_only_to_itself(lab: Lab) -> None:
    """AWS makes it so; an instance that names no group at launch is in it."""
    one, two = lab.run(), lab.run()
    assert not lab.open(lab.address(one), 22)
    assert lab.open(lab.address(one), 22, source=two)
    listed = subprocess.run(["iptables", "-t", "mangle", "-S"], capture_output=True, check=True, text=True).stdout
    assert listed.count(f'"flask-fleet rehearsal {NAME}"') == 2


def test_published_port_of_a_container_inside_is_covered(lab: Lab) -> None:
    """The inner Docker's DNAT comes after the filter; the test makes its network without the engine."""
    group = lab.group("published", rule(22, "10.0.0.0/8"))
    instance = lab.run(SecurityGroupIds=[group])
    lab.inside(instance, NESTED)
    address = lab.address(instance)
    assert not lab.open(address, 80)
    lab.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule(80, "10.0.0.0/8")])
    assert until(lambda: lab.open(address, 80))
