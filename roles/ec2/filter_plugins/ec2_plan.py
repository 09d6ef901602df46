"""Ansible filters: plan the subnets of an own network, the launch and removal of instances, and their CPU credits."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from ansible.errors import AnsibleFilterError

ZONE_BITS = 4
"""A network is cut into 16 subnets: no region has more zones, and a /16 gives /20, as the default VPC has them."""

LARGEST, SMALLEST = 16, 24
"""Prefix lengths of a network: AWS allows a /16 at most, and no subnet below a /28."""

BURSTABLE = re.compile(r"t\d")
"""Families with CPU credits: t2, t3, t3a, t4g."""

Instance = Mapping[str, Any]


class Subnet(TypedDict):
    """A subnet to have."""

    zone: str
    cidr: str


class Launch(TypedDict):
    """How many instances to launch in a zone."""

    zone: str
    count: int


class Plan(TypedDict):
    """What to do, with ids of instances to remove, and the image of the oldest instance that is there, or empty."""

    launch: list[Launch]
    remove: list[str]
    image: str


def ec2_subnets(zones: Iterable[str], cidr: str) -> list[Subnet]:
    """Cut a network into one subnet per zone; an empty CIDR block gives none, as the default VPC has its own subnets.

    A zone, such as ``eu-central-1a``, has the same subnet whatever the others are, because its letter chooses it.

    Raises:
        AnsibleFilterError: The block is none, or has the wrong size.
    """
    if not cidr:
        return []
    allowed = f"allowed is a private network from /{LARGEST} to /{SMALLEST}, such as 10.20.0.0/16"
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise AnsibleFilterError(f"ec2_vpc_cidr is {cidr!r}: {error}; {allowed}") from error
    if not (LARGEST <= network.prefixlen <= SMALLEST and network.is_private):
        raise AnsibleFilterError(f"ec2_vpc_cidr is {cidr!r}: {allowed}")
    blocks = list(network.subnets(prefixlen_diff=ZONE_BITS))
    return [{"zone": zone, "cidr": str(blocks[ord(zone[-1]) - ord("a")])} for zone in sorted(set(zones))]


def ec2_fleet(instances: Iterable[Instance], zones: Sequence[str], count: int) -> Plan:
    """Decide what to launch and what to remove, so that there are ``count`` instances.

    New instances go where the fewest are. Those that are removed are the newest, from zones that are no longer wanted
    first, then from where the most are; nothing is replaced only because its zone is no longer wanted.

    ``instances`` are those that are there, as ``amazon.aws.ec2_instance_info`` gives them.
    """
    kept = sorted(instances, key=_born)
    image = str(kept[0]["image_id"]) if kept else ""
    removed = []
    while len(kept) > count:
        crowd = Counter(_zone(one) for one in kept)
        victim = max(kept, key=lambda one: (_zone(one) not in zones, crowd[_zone(one)], _born(one)))
        kept.remove(victim)
        removed.append(str(victim["instance_id"]))
    crowd = Counter(_zone(one) for one in kept)
    launched: Counter[str] = Counter()
    for _ in range(count - len(kept)):
        launched[min(zones, key=lambda zone: (crowd[zone] + launched[zone], zone))] += 1
    launches: list[Launch] = [{"zone": zone, "count": number} for zone, number in sorted(launched.items())]
    return {"launch": launches, "remove": removed, "image": image}


def ec2_credit_mode(instance_type: str, chosen: str) -> str:
    """Say what a burstable type does without CPU credits, by its family unless one was chosen; others know no credits.

    A t2 begins with launch credits, 30 minutes of a CPU for each vCPU; t3, t3a and t4g begin with none, so in standard
    mode the first build would be held to the baseline from its first second:
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/burstable-performance-instances-standard-mode-concepts.html
    """
    if not BURSTABLE.match(instance_type):
        return "standard"
    return chosen or ("standard" if instance_type.startswith("t2.") else "unlimited")


def ec2_unsettled(
    instances: Iterable[Instance],
    wanted: Iterable[str],
    own: Mapping[str, str],
    released: Iterable[Mapping[str, Any]],
    subnets: Iterable[Mapping[str, Any]],
) -> list[str]:
    """Name the ids of instances whose public address AWS does not show yet.

    Without an Elastic IP, an instance has a public address where its subnet gives one. ``wanted`` are the ids of all,
    ``own`` are Elastic IPs by instance id, and ``released`` those that no instance has any longer.
    """
    gone = {one["public_ip"] for one in released}
    public = {one["id"] for one in subnets if one.get("map_public_ip_on_launch")}
    shown = {str(one["instance_id"]): one for one in instances}

    def settled(name: str) -> bool:
        address = shown.get(name, {}).get("public_ip_address")
        if name in own:
            return bool(address == own[name])
        if name not in shown or address in gone:
            return False
        return bool(address) or shown[name].get("subnet_id") not in public

    return [name for name in wanted if not settled(name)]


def _zone(instance: Instance) -> str:
    return str(instance["placement"]["availability_zone"])


def _born(instance: Instance) -> tuple[str, str]:
    """Tell the age by the first network interface: EC2 moves the launch time at every start."""
    interfaces = instance.get("network_interfaces") or [{}]
    attached = interfaces[0].get("attachment", {}).get("attach_time")
    return str(attached or instance["launch_time"]), str(instance["instance_id"])


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {
            "ec2_credit_mode": ec2_credit_mode,
            "ec2_fleet": ec2_fleet,
            "ec2_subnets": ec2_subnets,
            "ec2_unsettled": ec2_unsettled,
        }
