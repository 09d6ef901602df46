"""Where the load goes, and where it must not go."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from bench.load.errors import LoadError

# Written out: what ipaddress calls private includes networks that are no one's, or the cloud's own.
OWN_NETWORKS = [
    ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
]

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """A server under load.

    Attributes:
        host: Value of the Host header.
        addresses: IP addresses with ports, to be tried in this order.
        name: Host name that its certificate has to be for.
        tls: Which certificates are accepted; None for plain HTTP.
    """

    host: str
    addresses: tuple[tuple[str, int], ...]
    name: str = ""
    tls: ssl.SSLContext | None = None


def find_target(url: str, *, anywhere: bool, address: str = "", authorities: str = "") -> Target:
    """Resolve the server once, so that the addresses that are checked are the ones that are used.

    The arguments are the fields of ``Plan`` with these names.

    Raises:
        LoadError: The URL is wrong, its name is unknown, an address is not one's own, or the file has no certificates.
    """
    parts, port = _split(url)
    leads_to = address or parts.hostname
    try:
        found = socket.getaddrinfo(leads_to, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LoadError(f"{leads_to} cannot be resolved: {error}") from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not anywhere:
        _refuse_strangers(addresses)
    tls = _trusting(authorities) if parts.scheme == "https" else None
    return Target(parts.netloc, tuple((one, port) for one in addresses), parts.hostname or "", tls)


def _trusting(authorities: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities or None)
    except OSError as error:
        raise LoadError(f"{authorities} cannot be read as certificates: {error}") from error


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise LoadError(f"{url!r}: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        raise LoadError(f"{url!r} is not of the form http://HOST[:PORT] or https://HOST[:PORT]")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise LoadError(f"{url!r} has a path; give it with --path")
    return parts, PORTS[parts.scheme] if port is None else port


def _refuse_strangers(addresses: Iterable[str]) -> None:
    for address in addresses:
        if not any(ip_address(address) in network for network in OWN_NETWORKS):
            raise LoadError(
                f"{address} is not a loopback or private address, and load on a stranger's server is an attack; "
                "if the server is yours, add --anywhere"
            )
