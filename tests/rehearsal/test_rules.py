"""Security groups as rules of the packet filter."""

import pytest

from rehearsal.rules import Guest, Names, Rule, ruleset

NAMES = Names("trial")
GATEWAY = ("10.99.0.1", 16925)


def accepted(*guests: Guest) -> list[str]:
    """Return the rules that admit packets in or out, without those that always exist."""
    text = ruleset(NAMES, guests, [], GATEWAY)
    return [line.partition(" ")[2] for line in text.splitlines() if "-d 10.99" in line or "-s 10.99" in line]


def test_names_fit_into_the_kernels_limits() -> None:
    """An interface may have 15 characters and a chain 28, whatever the rehearsal's name is."""
    names = Names("a-rehearsal-with-a-very-long-nam")
    assert len(names.bridge) <= 15
    assert all(len(chain) <= 28 for _, chain in names.chains())
    assert names.bridge != NAMES.bridge


def test_nothing_is_open_at_first() -> None:
    lines = ruleset(NAMES, [Guest(("10.99.0.4",))], [], GATEWAY).splitlines()
    drops = [f"-A {chain} -j DROP" for chain in (NAMES.ingress, NAMES.egress)]
    assert [line for line in lines if line.endswith("DROP")] == drops
    assert accepted(Guest(("10.99.0.4",))) == []
    # A rule that names an empty group must not become a rule for everybody.
    assert accepted(Guest(("10.99.0.4",), (Rule("tcp", 80, 80, ()),))) == []


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (Rule("tcp", 80, 80), "-p tcp -m tcp --dport 80:80 "),
        (Rule("udp", 1, 9), "-p udp -m udp --dport 1:9 "),
        (Rule("-1"), ""),
        (Rule("icmp", -1, -1), "-p icmp "),
        (Rule("icmp", 8, -1), "-p icmp -m icmp --icmp-type 8 "),
        (Rule("icmp", 3, 4), "-p icmp -m icmp --icmp-type 3/4 "),
        (Rule("50", -1, -1), "-p 50 "),
    ],
)
def test_rules_are_written_as_the_kernel_wants_them(rule: Rule, match: str) -> None:
    assert accepted(Guest(("10.99.0.4",), (rule,))) == [f"{NAMES.ingress} -d 10.99.0.4/32 {match}-j RETURN"]


def test_every_address_and_every_peer_is_named() -> None:
    guest = Guest(("10.99.0.4", "10.99.255.1"), (Rule("tcp", 80, 80, ("10.99.0.5/32", "192.0.2.0/24")),))
    assert len(accepted(guest)) == 4
    assert f"{NAMES.ingress} -d 10.99.255.1/32 -s 192.0.2.0/24 -p tcp -m tcp --dport 80:80 -j RETURN" in accepted(guest)


def test_names_and_metadata_are_beyond_the_groups() -> None:
    """AWS never filters them."""
    text = ruleset(NAMES, [], ["192.0.2.53"], GATEWAY)
    assert f"-A {NAMES.egress} -d 192.0.2.53/32 -p udp -m udp --dport 53:53 -j RETURN" in text
    assert f"-A {NAMES.egress} -d 169.254.169.254/32 -j RETURN" in text
    assert "--dport 80 -j DNAT --to-destination 10.99.0.1:16925" in text


def test_controller_outside_is_admitted_by_its_outer_address_only() -> None:
    """Behind a NAT, a rule for its address in the instances' network no longer admits it."""
    rules = (Rule("tcp", 22, 22, ("198.51.100.0/24", "203.0.113.7/32")), Rule("tcp", 80, 80, ("10.99.0.1/32",)))
    lines = ruleset(NAMES, [Guest(("10.99.0.4",), rules)], [], GATEWAY, "203.0.113.7").splitlines()
    assert [line for line in lines if line.startswith(f"-A {NAMES.controller}")] == [
        f"-A {NAMES.controller} -m conntrack --ctstate RELATED,ESTABLISHED --ctrepldst 203.0.113.7 -j RETURN",
        f"-A {NAMES.controller} -m conntrack --ctstate RELATED,ESTABLISHED -j DROP",
        f"-A {NAMES.controller} -d 10.99.0.4/32 -p tcp -m tcp --dport 22:22 -j ACCEPT",
        f"-A {NAMES.controller} -j DROP",
        f"-A {NAMES.controller} -m addrtype --src-type LOCAL -m mark ! --mark 0xf1ee70 -j SNAT --to-source 203.0.113.7",
    ]
