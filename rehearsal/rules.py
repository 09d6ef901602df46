"""Security groups as rules of the kernel's packet filter; nothing here touches the kernel."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

ANYWHERE = "0.0.0.0/0"

METADATA_ADDRESS = "169.254.169.254"
"""Where AWS answers with instance metadata; security groups never apply to it."""

METADATA_PORT = 16925
"""Port of the metadata service at this machine's address in the instances' network."""

DNS_PORT = 53

OWN_MARK = 0x00F1EE70
"""Mark on the packets by which the rehearsal itself looks whether a boot has ended; no group can refuse them."""

PORT_PROTOCOLS = {"tcp", "udp"}


@dataclass(frozen=True)
class Rule:
    """One rule of a security group, with its source or destination groups resolved to addresses.

    Attributes:
        protocol: ``-1`` for all, or a name or number that iptables knows.
        first: First port, or the ICMP type; None or -1 for all.
        last: Last port, or the ICMP code; None or -1 for all.
        peers: CIDR blocks of the other side.
    """

    protocol: str
    first: int | None = None
    last: int | None = None
    peers: tuple[str, ...] = (ANYWHERE,)


@dataclass(frozen=True)
class Guest:
    """An instance, as far as the filter has to know it.

    Attributes:
        addresses: Its private address and its Elastic IPs.
        ingress: Who may open connections to it.
        egress: To whom it may open connections.
    """

    addresses: tuple[str, ...]
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Names:
    """Names of a rehearsal's bridge and chains; the kernel allows 15 and 28 characters."""

    rehearsal: str
    key: str = field(init=False)

    def __post_init__(self) -> None:
        """Shorten the name to something unique."""
        object.__setattr__(self, "key", hashlib.sha256(self.rehearsal.encode()).hexdigest()[:8])

    @property
    def bridge(self) -> str:
        """Network interface of the Docker network on this machine."""
        return f"ff-{self.key}"

    @property
    def ingress(self) -> str:
        """Chain for packets to instances."""
        return f"FF-{self.key}-in"

    @property
    def egress(self) -> str:
        """Chain for packets from instances."""
        return f"FF-{self.key}-out"

    @property
    def metadata(self) -> str:
        """Chain that leads to the metadata service."""
        return f"FF-{self.key}-meta"

    @property
    def controller(self) -> str:
        """Chain for packets from this machine, when it has another address outside; in ``nat``, that address."""
        return f"FF-{self.key}-ctl"

    def jumps(self) -> list[tuple[str, str, list[str]]]:
        """List table, built-in chain and rule of each place where the chains are entered.

        They are not entered in the table ``filter``, which is Docker's: what is dropped here is dropped whatever Docker
        accepts, and Docker may rebuild its chains at any time. POSTROUTING sees what this machine sends as well as what
        it forwards.
        """
        note = ["-m", "comment", "--comment", f"flask-fleet rehearsal {self.rehearsal}"]
        return [
            ("mangle", "POSTROUTING", ["-o", self.bridge, *note, "-j", self.ingress]),
            ("mangle", "PREROUTING", ["-i", self.bridge, *note, "-j", self.egress]),
            ("nat", "PREROUTING", ["-i", self.bridge, *note, "-j", self.metadata]),
            ("nat", "POSTROUTING", ["-o", self.bridge, *note, "-j", self.controller]),
        ]

    def chains(self) -> list[tuple[str, str]]:
        """List the table and the name of each chain."""
        return [
            ("mangle", self.ingress),
            ("mangle", self.egress),
            ("mangle", self.controller),
            ("nat", self.metadata),
            ("nat", self.controller),
        ]


def _match(rule: Rule) -> str:
    """Write which packets a rule means, without addresses."""
    if rule.protocol == "-1":
        return ""
    match = f" -p {rule.protocol}"
    if rule.first is None or rule.first < 0:
        return match
    if rule.protocol in PORT_PROTOCOLS:
        return f"{match} -m {rule.protocol} --dport {rule.first}:{rule.first if rule.last is None else rule.last}"
    if rule.protocol == "icmp":
        code = "" if rule.last is None or rule.last < 0 else f"/{rule.last}"
        return f"{match} -m icmp --icmp-type {rule.first}{code}"
    return match


def _accepted(chain: str, own: str, other: str, guest: Guest, rules: Iterable[Rule]) -> Iterator[str]:
    for rule in rules:
        for peer in rule.peers:
            far = "" if peer == ANYWHERE else f" {other} {peer}"
            for address in guest.addresses:
                yield f"-A {chain} {own} {address}/32{far}{_match(rule)} -j RETURN"


def _from_controller(names: Names, guests: Sequence[Guest], address: str) -> Iterator[str]:
    """Write what this machine may do when it has another address outside, which the groups' rules must cover.

    Its packets get that address only after they passed here. A connection that was opened from an earlier address ends
    as behind a router whose address changed: nothing of it arrives any more, in either direction.
    """
    ours = f"-A {names.ingress} -m addrtype --src-type LOCAL -m conntrack --ctdir ORIGINAL"
    known = f"-A {names.controller} -m conntrack --ctstate RELATED,ESTABLISHED"
    yield f"{ours} -j {names.controller}"
    yield f"-A {names.egress} -m conntrack --ctdir REPLY --ctstate SNAT ! --ctrepldst {address} -j DROP"
    yield f"{known} --ctrepldst {address} -j RETURN"
    yield f"{known} -j DROP"
    for guest in guests:
        for rule in guest.ingress:
            if any(ipaddress.ip_address(address) in ipaddress.ip_network(peer, strict=False) for peer in rule.peers):
                for own in guest.addresses:
                    yield f"-A {names.controller} -d {own}/32{_match(rule)} -j ACCEPT"
    yield f"-A {names.controller} -j DROP"


def ruleset(
    names: Names,
    guests: Sequence[Guest],
    name_servers: Sequence[str],
    metadata: tuple[str, int],
    controller: str = "",
) -> str:
    """Write the chains that enforce the security groups, as input for ``iptables-restore --noflush``.

    That replaces the chains of each table at once. What is already connected stays connected when a rule goes, as on
    AWS.

    Args:
        name_servers: Where instances may ask for names, whatever their groups say.
        metadata: Address and port of the metadata service.
        controller: Address of this machine as instances see it; when empty, its address in their network.
    """
    known = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    lines = ["*mangle", *(f":{chain} - [0:0]" for table, chain in names.chains() if table == "mangle")]
    lines += [f"-A {names.ingress} -m mark --mark {OWN_MARK:#x} -j RETURN"]
    lines += _from_controller(names, guests, controller) if controller else []
    lines += [f"-A {names.ingress} {known}", f"-A {names.egress} {known}"]
    lines += [f"-A {names.egress} -d {METADATA_ADDRESS}/32 -j RETURN"]
    for server in name_servers:
        for protocol in ("udp", "tcp"):
            lines.append(f"-A {names.egress} -d {server}/32{_match(Rule(protocol, DNS_PORT, DNS_PORT))} -j RETURN")
    for guest in guests:
        lines += dict.fromkeys(_accepted(names.ingress, "-d", "-s", guest, guest.ingress))
        lines += dict.fromkeys(_accepted(names.egress, "-s", "-d", guest, guest.egress))
    lines += [f"-A {names.ingress} -j DROP", f"-A {names.egress} -j DROP", "COMMIT"]
    lines += ["*nat", *(f":{chain} - [0:0]" for table, chain in names.chains() if table == "nat")]
    target = f"-p tcp -m tcp --dport 80 -j DNAT --to-destination {metadata[0]}:{metadata[1]}"
    lines += [f"-A {names.metadata} -d {METADATA_ADDRESS}/32 {target}"]
    if controller:
        unmarked = f"-m mark ! --mark {OWN_MARK:#x}"
        lines += [f"-A {names.controller} -m addrtype --src-type LOCAL {unmarked} -j SNAT --to-source {controller}"]
    return "\n".join([*lines, "COMMIT"]) + "\n"
