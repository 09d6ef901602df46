"""Checks addresses and ports, which decide who may reach what."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from plugins.filter.routes import serves_https
from preflight.own_address import EXAMPLE, ME, UnknownAddressError, own_address, ssh_blocks
from preflight.variables import Variables, is_true, whole_number
from roles.ec2.filter_plugins.ec2_plan import LARGEST, SMALLEST

HIGHEST_PORT = 65535
SSH_PORT = 22

PRIVATE = [ipaddress.IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")]
"""Addresses that a router replaces on the way to AWS: RFC 1918, and RFC 6598 for the routers of providers."""


def _read_block(value: object) -> ipaddress.IPv4Network | str:
    """Read a CIDR block, or say what is wrong with it."""
    text = str(value)
    try:
        block = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"allowed is a CIDR block such as {EXAMPLE}"
    if isinstance(block, ipaddress.IPv6Network):
        return f"that is IPv6, and the instances have IPv4 addresses only; allowed is a CIDR block such as {EXAMPLE}"
    if "/" not in text:
        return f"the length of the prefix is missing; allowed is a CIDR block such as {block}"
    if str(block) != text:
        return f"that is an address inside {block}; allowed is {block}"
    return block


def _covers_everything(blocks: Iterable[ipaddress.IPv4Network]) -> bool:
    """Tell whether blocks are the whole internet, also when it was cut into pieces."""
    return any(block.prefixlen == 0 for block in ipaddress.collapse_addresses(blocks))


def items(value: object) -> list[object]:
    """Split a list as Ansible does when -e gives it as text; a value of another type, reported elsewhere, is empty."""
    if isinstance(value, str | int):
        return [part.strip() for part in str(value).split(",")]
    return list(value) if isinstance(value, list) else []


def bad_ssh_cidrs(variables: Variables) -> Iterator[str]:
    """Check who may reach SSH, and yield a sentence for each problem."""
    cidrs = items(variables.get("ec2_ssh_cidrs", []))
    blocks: list[ipaddress.IPv4Network] = []
    for position, cidr in enumerate(cidrs):
        if cidr == ME:
            continue
        read = _read_block(cidr)
        if isinstance(read, str):
            yield f"ec2_ssh_cidrs[{position}] is {cidr!r}: {read}; a single address ends in /32"
        else:
            blocks.append(read)
    if _covers_everything(blocks) and not is_true(variables.get("ec2_ssh_from_anywhere")):
        yield (
            f"ec2_ssh_cidrs is {cidrs}, which opens SSH to the whole internet: allowed are your own addresses, "
            f"such as {EXAMPLE}, or this with ec2_ssh_from_anywhere: true"
        )


def _is_private(cidr: str) -> bool:
    block = ipaddress.IPv4Network(cidr)
    return any(block.subnet_of(private) for private in PRIVATE)


def unreachable_ssh(variables: Variables, rehearsal: bool) -> Iterator[str]:
    """Yield a sentence when SSH would be open to no address that AWS can see, or when this machine's own is not known.

    In a rehearsal the instances are on this machine, where private addresses are seen.
    """
    cidrs = items(variables["ec2_ssh_cidrs"])
    try:
        blocks = ssh_blocks(cidrs)
    except UnknownAddressError as error:
        yield str(error)
        return
    if rehearsal or not blocks or not all(map(_is_private, blocks)):
        return
    try:
        seen = own_address()
    except UnknownAddressError as error:
        yield f"ec2_ssh_cidrs is {cidrs}, but AWS never sees a private address: allowed are public ones; {error}"
        return
    yield (
        f"ec2_ssh_cidrs is {cidrs}, but AWS never sees a private address: it sees this machine at {seen}. "
        f"Allowed is {ME}, or {seen}/32"
    )


def bad_vpc_cidr(variables: Variables) -> Iterator[str]:
    """Yield a sentence when the addresses of a VPC of the project's own cannot be used."""
    cidr = variables.get("ec2_vpc_cidr")
    if not cidr:
        return
    read = _read_block(cidr)
    if isinstance(read, str):
        yield f"ec2_vpc_cidr is {cidr!r}: {read}"
    elif not (LARGEST <= read.prefixlen <= SMALLEST and read.is_private):
        yield (
            f"ec2_vpc_cidr is {cidr!r}: allowed is a private IPv4 block from /{LARGEST} to /{SMALLEST}, "
            "such as 10.20.0.0/16"
        )


def bad_public_ports(variables: Variables) -> Iterator[str]:
    """Check the ports that everybody may reach, and yield a sentence for each problem."""
    numbers = map(whole_number, items(variables.get("ec2_public_ports", [])))
    ports = [number for number in numbers if number is not None]
    for port in ports:
        if not 1 <= port <= HIGHEST_PORT:
            yield f"ec2_public_ports has {port}: allowed are whole numbers from 1 to {HIGHEST_PORT}"
    if SSH_PORT in ports and not is_true(variables.get("ec2_ssh_from_anywhere")):
        yield (
            f"ec2_public_ports has {SSH_PORT}, which opens SSH to the whole internet: "
            "allowed is ec2_ssh_cidrs with your own addresses, or this with ec2_ssh_from_anywhere: true"
        )


def published_ports(variables: Variables) -> list[str]:
    """Name the variables with the ports that nginx is published on."""
    return ["stack_port", *(["stack_https_port"] if serves_https(variables["certificate_mode"]) else [])]


def closed_ports(variables: Variables) -> Iterator[str]:
    """Yield a sentence for each port of nginx that the security group does not open."""
    opened = sorted(int(str(port)) for port in items(variables["ec2_public_ports"]))
    for name in published_ports(variables):
        if int(variables[name]) not in opened:
            yield (
                f"{name} is {variables[name]}, but ec2_public_ports is {opened}: nobody could reach nginx; "
                "allowed is one of these ports, or to add it to them"
            )
