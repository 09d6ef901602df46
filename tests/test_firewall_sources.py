"""Sources of the firewall: a mistake here locks somebody out, or lets somebody in."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from roles.firewall.filter_plugins.firewall_sources import firewall_admits, firewall_families

CIDRS = ["203.0.113.7/32", "10.0.0.0/8", "2001:db8::/48"]


def test_blocks_are_sorted_by_family() -> None:
    """A set of the packet filter holds one address family, and refuses an address of the other."""
    assert firewall_families(CIDRS) == {"ipv4": ["203.0.113.7/32", "10.0.0.0/8"], "ipv6": ["2001:db8::/48"]}
    assert firewall_families([]) == {"ipv4": [], "ipv6": []}


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("203.0.113.7", True),
        ("203.0.113.8", False),
        ("10.255.0.1", True),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1", True),
        ("fe80::1%eth0", False),
    ],
)
def test_an_address_is_admitted_by_the_block_that_has_it(address: str, admitted: bool) -> None:
    """The addresses have the form in which sshd writes them into SSH_CONNECTION."""
    assert firewall_admits(address, CIDRS) is admitted


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "home", "10.0.0.0/33"])
def test_what_is_no_block_is_refused(cidr: str) -> None:
    """A guess could admit somebody whom nobody meant."""
    with pytest.raises(AnsibleFilterError, match=r"firewall_ssh_cidrs has .* allowed is such as 203.0.113.7/32"):
        firewall_families([cidr])
