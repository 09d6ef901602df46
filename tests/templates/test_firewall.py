"""The rules of the packet filter; what they let through is tested on an instance."""

import re

import pytest

from tests.templates.render import MANAGED, Renderer

RULES = "etc/firewall.nft.j2"
UNIT = "etc/systemd/system/firewall.service.j2"


def sets(text: str) -> dict[str, str]:
    """Return the elements of each set."""
    found = re.findall(r"set (\w+) \{(.*?)\n    \}", text, re.DOTALL)
    return {name: "".join(re.findall(r"elements = \{ (.*) \}", body)) for name, body in found}


def test_sources_and_ports_are_those_of_the_inventory(render: Renderer) -> None:
    """Families have a set each, and a port that is named twice is one port."""
    text = render(
        "firewall", RULES, firewall_ssh_cidrs=["10.0.0.0/8", "2001:db8::/48"], firewall_public_ports=[80, 443, 80]
    )
    assert MANAGED in text
    assert sets(text) == {"ssh_ipv4": "10.0.0.0/8", "ssh_ipv6": "2001:db8::/48", "public": "80, 443"}


def test_nobody_is_let_in_where_nobody_is_named(render: Renderer) -> None:
    """An empty list of elements is a mistake to nft, and no list must not mean everybody."""
    text = render("firewall", RULES, firewall_ssh_cidrs=[], firewall_public_ports=[])
    assert set(sets(text).values()) == {""}
    assert "elements" not in text


def test_only_our_own_table_is_replaced(render: Renderer) -> None:
    """To flush everything, as Debian's example does, would take Docker's rules along until it restarts."""
    text = render("firewall", RULES, firewall_ssh_cidrs=[], firewall_public_ports=[]) + render("firewall", UNIT)
    assert "flush" not in text
    assert re.findall(r"delete table (.*)", text) == ["inet flask_fleet", "inet flask_fleet"]


@pytest.mark.parametrize("key", ["ExecStart", "ExecReload"])
def test_the_unit_loads_the_file(render: Renderer, key: str) -> None:
    """At boot, before there is a network, and again when it changed."""
    text = render("firewall", UNIT)
    assert f"{key}=/usr/sbin/nft --file /etc/firewall.nft" in text.splitlines()
    assert "Before=network-pre.target shutdown.target" in text.splitlines()
