"""The rules of the packet filter; other tests on an instance show what they admit."""

import re

import pytest

from bench.render import MANAGED, Renderer

RULES = "etc/firewall.nft.j2"
UNIT = "etc/systemd/system/firewall.service.j2"


def sets(text: str) -> dict[str, str]:
    found = re.findall(r"set (\w+) \{(.*?)\n    \}", text, re.DOTALL)
    return {name: "".join(re.findall(r"elements = \{ (.*) \}", body)) for name, body in found}


def test_sources_and_ports_are_those_of_the_inventory(render: Renderer) -> None:
    """Each address family has a set, and a port that is named twice is in it once."""
    text = render(
        "firewall", RULES, firewall_ssh_cidrs=["10.0.0.0/8", "2001:db8::/48"], firewall_public_ports=[80, 443, 80]
    )
    assert MANAGED in text
    assert sets(text) == {"ssh_ipv4": "10.0.0.0/8", "ssh_ipv6": "2001:db8::/48", "public": "80, 443"}


def test_nobody_is_let_in_where_nobody_is_named(render: Renderer) -> None:
    """Nft refuses an empty list of elements, and a missing list must not admit everybody."""
    text = render("firewall", RULES, firewall_ssh_cidrs=[], firewall_public_ports=[])
    assert set(sets(text).values()) == {""}
    assert "elements" not in text


def test_only_our_own_table_is_replaced(render: Renderer) -> None:
    """To flush everything, as Debian's example does, would remove Docker's rules until it restarts."""
    text = render("firewall", RULES, firewall_ssh_cidrs=[], firewall_public_ports=[]) + render("firewall", UNIT)
    assert "flush" not in text
    assert re.findall(r"delete table (.*)", text) == ["inet flask_fleet", "inet flask_fleet"]


@pytest.mark.parametrize("key", ["ExecStart", "ExecReload"])
def test_the_unit_loads_the_file(render: Renderer, key: str) -> None:
    text = render("firewall", UNIT)
    assert f"{key}=/usr/sbin/nft --file /etc/firewall.nft" in text.splitlines()
    assert "Before=network-pre.target shutdown.target" in text.splitlines()
