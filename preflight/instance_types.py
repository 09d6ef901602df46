"""Checks that the region has the instance type where instances are to be, and that the services fit into it."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from preflight.cloud import Cloud
from preflight.cost import with_price
from preflight.network import items
from preflight.services import no_room
from roles.ec2.library.type_zones import offering_zones, region_zones

FAMILIES = ["t2.*", "t3.*", "t3a.*"]
"""Families that are suggested; other x86-64 types work as well."""

ARCHITECTURE = "x86_64"


def type_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the region has the instance type, that images for it can be made, and that the services fit."""
    name = cloud.variables["ec2_instance_type"]
    if cloud.wanted_type is None:
        yield f"ec2_instance_type is {name!r}: {cloud.region} has no such type; {suggestion(cloud)}"
        return
    architectures = cloud.wanted_type["ProcessorInfo"]["SupportedArchitectures"]
    if ARCHITECTURE not in architectures:
        yield (
            f"ec2_instance_type is {name!r}, which is {' and '.join(architectures)}, and this project makes images for "
            f"{ARCHITECTURE} only: {cloud.region} has other types; {suggestion(cloud)}"
        )
        return
    memory_mib = int(cloud.wanted_type["MemoryInfo"]["SizeInMiB"])
    yield from no_room(cloud.variables, f"a {name}", cloud.vcpus(name), memory_mib)
    yield from zone_problems(cloud)


def suggestion(cloud: Cloud) -> str:
    """Name the nearest type that the region has, with its price, or all of them when none is near."""
    pages = cloud.ec2.get_paginator("describe_instance_types").paginate(
        Filters=[{"Name": "instance-type", "Values": FAMILIES}]
    )
    known = sorted(one["InstanceType"] for page in pages for one in page["InstanceTypes"])
    if not known:
        return f"allowed is an {ARCHITECTURE} type that it has, or another region"
    near = get_close_matches(str(cloud.variables["ec2_instance_type"]), known, n=1)
    if near:
        return f"the nearest that it has is {with_price(cloud.prices, cloud.region, near[0])}"
    return f"allowed are for example {', '.join(known)}"


def zone_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the type is offered where instances are to be, and where they are already."""
    name = cloud.variables["ec2_instance_type"]
    zones, offering = region_zones(cloud.ec2), offering_zones(cloud.ec2, name)
    subnets = subnet_zones(cloud) or zones
    usable = [zone for zone in zones if zone in offering and zone in subnets]
    chosen = [str(zone) for zone in items(cloud.variables.get("ec2_zones") or [])]
    allowed = f"allowed are {', '.join(usable)}" if usable else "allowed is another ec2_instance_type"
    if not chosen and not usable:
        yield f"ec2_instance_type is {name!r}: no zone of {cloud.region} with a default subnet offers it; {allowed}"
    for zone in chosen:
        if zone not in zones:
            yield f"ec2_zones has {zone!r}: {cloud.region} has no such zone; {allowed}"
        elif zone not in offering:
            yield f"ec2_zones has {zone!r}, where {name} (ec2_instance_type) is not offered; {allowed}"
        elif zone not in subnets:
            yield f"ec2_zones has {zone!r}, where the default VPC has no subnet; {allowed}, or an ec2_vpc_cidr"
    for one in cloud.ours:
        zone = one["Placement"]["AvailabilityZone"]
        if one["InstanceType"] != name and zone not in offering:
            yield (
                f"ec2_instance_type is {name!r}, but {one['InstanceId']} is in {zone}, which does not offer it; "
                f"allowed is {one['InstanceType']}, which it is, or another type"
            )


def subnet_zones(cloud: Cloud) -> set[str]:
    """Ask in which zones the default VPC has subnets; a network of the project's own gets one in each zone."""
    if cloud.variables.get("ec2_vpc_cidr"):
        return set()
    default = [{"Name": "default-for-az", "Values": ["true"]}]
    return {one["AvailabilityZone"] for one in cloud.ec2.describe_subnets(Filters=default)["Subnets"]}
