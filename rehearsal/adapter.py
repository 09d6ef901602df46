"""Presents moto's instances in the form that the fleet needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, StateReason
from moto.ec2.models.security_groups import SecurityGroup, SecurityGroupRule

from rehearsal.rules import Guest, Rule
from rehearsal.sizing import Size, size_of

TERMINATE = Instance.terminate
"""moto's own: rehearsal/patches.py, which imports this module, replaces it later."""

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
"""AWS's number of each instance state."""


class MotoInstance:
    """An instance in moto's memory."""

    def __init__(self, instance: Instance) -> None:
        """Wrap moto's instance."""
        self.raw = instance

    @property
    def id(self) -> str:
        """The EC2 instance id."""
        return str(self.raw.id)

    @property
    def size(self) -> Size:
        """Size of its present type."""
        return size_of(INSTANCE_TYPES[self.raw.instance_type])

    @property
    def state(self) -> str:
        """Name of its EC2 state."""
        return str(self.raw.state)

    @property
    def terminates_on_shutdown(self) -> bool:
        """Whether ``poweroff`` inside terminates it."""
        return bool(self.raw.instance_initiated_shutdown_behavior == "terminate")

    def reclaim(self) -> None:
        """Terminate the instance as if AWS wanted it back; protection does not help."""
        self.raw.terminate()

    def give_back(self) -> Any:
        """Give back its addresses, interfaces and disks; Elastic IPs stay allocated.

        The result is its state before, as that of moto's own method is.
        """
        backend = self.raw.ec2_backend
        for address in list(backend.addresses):
            if address.instance_id == self.id:
                backend.disassociate_address(address=address.public_ip)
        return TERMINATE(self.raw)

    def become(self, state: str, code: str = "", reason: str = "") -> None:
        """Change the EC2 state; the state reason has the code, and the reason as its message."""
        self.raw.state_reason = StateReason(f"{code}: {reason}" if code else "", code)
        self.raw._reason = f"{reason} ({utcnow():%Y-%m-%d %H:%M:%S UTC})" if reason else ""  # noqa: SLF001 (no setter)
        self.raw.instance_state.name = state
        self.raw.instance_state.code = CODES[state]


class MotoImage:
    """An AMI in moto's memory that was made from an instance."""

    def __init__(self, image: Ami) -> None:
        """Wrap moto's AMI."""
        self.raw = image

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.raw.id)

    def become(self, state: str) -> None:
        """Change its state to ``pending``, ``available`` or ``failed``."""
        self.raw.state = state


def own_images() -> list[Ami]:
    """List the AMIs of all regions that were made from instances."""
    regions = [backend for account in list(ec2_backends.values()) for backend in list(account.values())]
    return [image for backend in regions for image in list(backend.amis.values()) if is_own(image)]


def is_own(image: Ami) -> bool:
    """Tell whether an AMI was made from an instance, and so has a disk of its own."""
    return bool(image.instance_id) and image.owner_id == image.ec2_backend.account_id


def all_instances() -> Iterator[Instance]:
    """Go through moto's instances of all regions, the oldest first in each region."""
    for account in list(ec2_backends.values()):
        for backend in list(account.values()):
            for reservation in list(backend.reservations.values()):
                yield from list(reservation.instances)


def groups_of(instance: Instance) -> list[SecurityGroup]:
    """List an instance's security groups; those of its interface when it was launched without any."""
    found = {group.id: group for interface in instance.nics.values() for group in interface.group_set}
    return [found[group_id] for group_id in sorted(found)]


def guests() -> list[Guest]:
    """Describe the instances that are not terminated for the packet filter."""
    living = [one for one in all_instances() if one.state != "terminated" and one.private_ip]
    members: dict[str, list[str]] = {}
    for instance in living:
        for group in groups_of(instance):
            members.setdefault(group.id, []).append(f"{instance.private_ip}/32")
    return [_guest(instance, members) for instance in living]


def _guest(instance: Instance, members: dict[str, list[str]]) -> Guest:
    interfaces = list(instance.nics.values())
    elastic = [one.public_ip for one in instance.ec2_backend.addresses if one.eni in interfaces]
    ingress = [_rule(rule, members) for group in groups_of(instance) for rule in group.ingress_rules]
    egress = [_rule(rule, members) for group in groups_of(instance) for rule in group.egress_rules]
    return Guest((str(instance.private_ip), *sorted(elastic)), tuple(ingress), tuple(egress))


def _rule(rule: SecurityGroupRule, members: dict[str, list[str]]) -> Rule:
    peers = [rule.cidr_ipv4] if rule.cidr_ipv4 else []
    peers += members.get(rule.source_group.get("GroupId", ""), [])
    return Rule(str(rule.ip_protocol), rule.from_port, rule.to_port, tuple(peers))
