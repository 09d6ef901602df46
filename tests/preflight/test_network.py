"""Addresses and ports that would admit everybody, or nobody, are refused."""

from typing import Any

import pytest

from preflight import network

SUCH_AS = "allowed is a CIDR block such as 203.0.113.7/32"
WORLD = "which opens SSH to the whole internet"
PLAIN = {"certificate_mode": "none", "stack_port": 80, "stack_https_port": 443}


def ssh(cidrs: object, **more: Any) -> list[str]:
    return list(network.bad_ssh_cidrs({"ec2_ssh_cidrs": cidrs} | more))


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        *((cidr, SUCH_AS) for cidr in ("203.0.113.300/32", "203.0.113.7/33", "my-office", "")),
        ("203.0.113.7", f"the length of the prefix is missing; {SUCH_AS}"),
        ("203.0.113.7/24", "that is an address inside 203.0.113.0/24; allowed is 203.0.113.0/24"),
        *(
            (cidr, f"that is IPv6, and the instances have IPv4 addresses only; {SUCH_AS}")
            for cidr in ("2001:db8::7", "2001:db8::7/128", "2001:db8::/64", "::/0")
        ),
    ],
)
def test_malformed_block_is_refused(cidr: str, why: str) -> None:
    said = f"ec2_ssh_cidrs[1] is {cidr!r}: {why}; a single address ends in /32"
    assert ssh(["10.0.0.0/8", cidr], ec2_ssh_from_anywhere=True) == [said]


@pytest.mark.parametrize(
    "cidrs",
    [[], ["me"], ["me", "203.0.113.7/32"], "me", "me,203.0.113.7/32", ["10.0.0.0/8"], "203.0.113.7/32, 10.0.0.0/8"],
)
def test_own_addresses_are_allowed(cidrs: object) -> None:
    """-e gives a list as text; an empty list closes SSH."""
    assert ssh(cidrs) == []


@pytest.mark.parametrize(
    "cidrs",
    [["0.0.0.0/0"], ["me", "0.0.0.0/0"], ["10.0.0.0/8", "0.0.0.0/0"], ["0.0.0.0/1", "128.0.0.0/1"], "0.0.0.0/0"],
    ids=str,
)
def test_whole_internet_is_refused_unless_it_is_meant(cidrs: object) -> None:
    """Scanners find an open port 22 first, and two halves of the internet are no better than all of it."""
    (problem,) = ssh(cidrs)
    assert WORLD in problem
    assert "ec2_ssh_from_anywhere: true" in problem
    assert ssh(cidrs, ec2_ssh_from_anywhere="false") == [problem]
    assert ssh(cidrs, ec2_ssh_from_anywhere=True) == []
    assert ssh(cidrs, ec2_ssh_from_anywhere="yes") == []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preflight.own_address.own_address", lambda: "198.51.100.7")
    monkeypatch.setattr(network, "own_address", lambda: "198.51.100.7")


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize(
    "cidrs",
    [["10.0.0.0/8"], ["192.168.1.23/32", "172.31.0.0/16"], ["100.64.0.0/10"], "10.0.0.0/8,192.168.0.0/16"],
    ids=str,
)
def test_private_addresses_alone_are_refused_on_aws(cidrs: object) -> None:
    """Nobody could log in, which shows only after five minutes of an instance that costs."""
    (problem,) = network.unreachable_ssh({"ec2_ssh_cidrs": cidrs}, rehearsal=False)
    assert problem == (
        f"ec2_ssh_cidrs is {network.items(cidrs)}, but AWS never sees a private address: it sees this machine at "
        "198.51.100.7. Allowed is me, or 198.51.100.7/32"
    )
    assert list(network.unreachable_ssh({"ec2_ssh_cidrs": cidrs}, rehearsal=True)) == []


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize(
    "cidrs", [["me"], ["10.0.0.0/8", "me"], ["10.0.0.0/8", "203.0.113.7/32"], ["10.0.0.0/7"], []], ids=str
)
def test_one_public_address_is_enough_on_aws(cidrs: list[str]) -> None:
    """An office's VPN may be among them."""
    assert list(network.unreachable_ssh({"ec2_ssh_cidrs": cidrs}, rehearsal=False)) == []


def test_ssh_among_the_public_ports_is_the_same() -> None:
    (problem,) = network.bad_public_ports({"ec2_public_ports": [80, "22"]})
    assert WORLD in problem
    assert list(network.bad_public_ports({"ec2_public_ports": [80, 22], "ec2_ssh_from_anywhere": True})) == []


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_impossible_port_is_refused(port: int) -> None:
    (problem,) = network.bad_public_ports({"ec2_public_ports": [80, port]})
    assert problem == f"ec2_public_ports has {port}: allowed are whole numbers from 1 to 65535"


@pytest.mark.parametrize("cidr", ["10.20.0.0/15", "10.20.0.0/25", "10.20.0.1/16", "8.8.0.0/16", "2001:db8::/56", "vpc"])
def test_vpc_needs_a_block_that_can_be_cut_into_subnets(cidr: str) -> None:
    (problem,) = network.bad_vpc_cidr({"ec2_vpc_cidr": cidr})
    assert problem.startswith(f"ec2_vpc_cidr is {cidr!r}: ")


@pytest.mark.parametrize("cidr", ["", None, "10.20.0.0/16", "10.20.0.0/24"])
def test_good_vpc_is_allowed(cidr: str | None) -> None:
    assert list(network.bad_vpc_cidr({"ec2_vpc_cidr": cidr})) == []


def test_ports_of_nginx_have_to_be_open() -> None:
    (problem,) = network.closed_ports(PLAIN | {"stack_port": "8080", "ec2_public_ports": [80, "443"]})
    assert problem == (
        "stack_port is 8080, but ec2_public_ports is [80, 443]: nobody could reach nginx; "
        "allowed is one of these ports, or to add it to them"
    )
    secure = PLAIN | {"certificate_mode": "acme"}
    (problem,) = network.closed_ports(secure | {"ec2_public_ports": [80]})
    assert problem.startswith("stack_https_port is 443, but ec2_public_ports is [80]: nobody could reach nginx; ")
    assert list(network.closed_ports(secure | {"ec2_public_ports": "80,443"})) == []
    assert list(network.closed_ports(PLAIN | {"ec2_public_ports": [80]})) == []
