"""What the instances' network takes over from this machine's: name servers and packet size."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from rehearsal.errors import RehearsalError

RESOLV_CONF = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Where name servers may be found; the second has the real ones when the first names systemd-resolved's stub."""

PREFIX_LENGTH = 16
"""Size of the network: that of an AWS default VPC, which is cut into /20 subnets."""

FALLBACK_MTU = 1500


def parse_network(cidr: str) -> ipaddress.IPv4Network:
    """Check the CIDR block of a rehearsal, for example ``10.71.0.0/16``.

    Raises:
        RehearsalError: It is not a private IPv4 /16.
    """
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise RehearsalError(f"--network {cidr!r}: {error}; a private /16 is needed, such as 10.71.0.0/16") from error
    if network.prefixlen != PREFIX_LENGTH or not network.is_private:
        raise RehearsalError(f"--network {cidr!r}: a private /16 is needed, such as 10.71.0.0/16")
    return network


def check_controller(address: str, cidr: str) -> None:
    """Check the address, if any, that instances are to see of this machine, against the rehearsal's network.

    Raises:
        RehearsalError: It is no IPv4 address, or one of the instances' network.
    """
    wanted = "an IPv4 address outside the rehearsal's network is needed, such as 203.0.113.7"
    try:
        inside = bool(address) and ipaddress.IPv4Address(address) in parse_network(cidr)
    except ipaddress.AddressValueError as error:
        raise RehearsalError(f"--controller-address {address!r}: {wanted}") from error
    if inside:
        raise RehearsalError(f"--controller-address {address!r} is in {cidr}: {wanted}")


def elastic_pool(network: ipaddress.IPv4Network) -> list[str]:
    """List the addresses for Elastic IPs, ascending: those of the last /24, which no default subnet reaches."""
    return [str(address) for address in list(network.subnets(new_prefix=24))[-1].hosts()]


def _usable(text: str) -> list[str]:
    servers = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", server, *_] if _is_reachable(server):
                servers.append(server)
    return servers


def _is_reachable(server: str) -> bool:
    """Leave out what an instance cannot reach: this machine's loopback and IPv6 link-local addresses."""
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    return not address.is_loopback and not (isinstance(address, ipaddress.IPv6Address) and address.is_link_local)


def resolv_conf(candidates: tuple[Path, ...] = RESOLV_CONF) -> str | None:
    """Write an instance's /etc/resolv.conf; None when this machine has no name server that an instance can reach.

    ``candidates`` are files of this machine, in order of preference: the first one with such a name server counts.
    """
    for path in candidates:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        servers = _usable(text)
        if servers:
            others = [line for line in text.splitlines() if line.split()[:1] in (["search"], ["options"])]
            return "\n".join([*others, *(f"nameserver {server}" for server in servers)]) + "\n"
    return None


def name_servers(candidates: tuple[Path, ...] = RESOLV_CONF) -> list[str]:
    """List the IPv4 addresses of the name servers that instances use."""
    return [server for server in _usable(resolv_conf(candidates) or "") if ":" not in server]


def default_mtu(
    routes: Path = Path("/proc/net/route"),
    interfaces: Path = Path("/sys/class/net"),
) -> int:
    """Find the MTU of this machine's default route in bytes; 1500 when there is no such route.

    ``routes`` is the kernel's IPv4 routing table, and ``interfaces`` has one directory per network interface.
    """
    for line in routes.read_text(encoding="ascii").splitlines()[1:]:
        interface, destination = line.split()[:2]
        if destination == "00000000":
            return int((interfaces / interface / "mtu").read_text(encoding="ascii"))
    return FALLBACK_MTU
