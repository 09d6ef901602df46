"""Ansible filters: from which addresses a packet filter lets somebody in."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError


def _block(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(cidr)
    except ValueError as error:
        raise AnsibleFilterError(
            f"firewall_ssh_cidrs has {cidr!r}: {error}; allowed is such as 203.0.113.7/32"
        ) from error


def firewall_families(cidrs: Sequence[str]) -> dict[str, list[str]]:
    """Sort CIDR blocks into ``ipv4`` and ``ipv6``, because a set of the packet filter holds one family only."""
    families: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for cidr in cidrs:
        families[f"ipv{_block(cidr).version}"].append(cidr)
    return families


def firewall_admits(address: str, cidrs: Sequence[str]) -> bool:
    """Tell whether somebody who comes from an address would still be let in by the blocks of ``firewall_ssh_cidrs``.

    The address is as sshd gives it in ``SSH_CONNECTION``: IPv4 may be written as IPv6, and a zone may follow.
    """
    read = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(read, ipaddress.IPv6Address) and read.ipv4_mapped:
        read = read.ipv4_mapped
    return any(read in _block(cidr) for cidr in cidrs)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"firewall_admits": firewall_admits, "firewall_families": firewall_families}
