"""Checks what only AWS can tell: whether it would make the instances that are asked for, and let them be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from preflight.account_plan import plan_problems
from preflight.cloud import Cloud
from preflight.instance_types import type_problems
from preflight.keys import public_half, public_halves
from preflight.machine_image import image_problems
from preflight.quotas import address_problems, group_problems, vcpu_problems, vpc_problems
from preflight.refusals import DENIED


def network_problems(cloud: Cloud) -> Iterator[str]:
    """Check that there is a network for the instances."""
    if not cloud.variables.get("ec2_vpc_cidr") and not any(one["IsDefault"] for one in cloud.vpcs):
        yield (
            f"ec2_vpc_cidr is empty, but {cloud.region} has no default VPC: allowed is a block for a VPC of the "
            "project's own, such as 10.20.0.0/16, or a new default VPC: aws ec2 create-default-vpc"
        )


def key_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the private key is the one that opens the instances that run."""
    file = Path(cloud.variables["ec2_private_key_file"]).expanduser()
    users: dict[str, list[str]] = {}
    for one in cloud.ours:
        if one.get("KeyName"):
            users.setdefault(one["KeyName"], []).append(one["InstanceId"])
    if not users:
        return
    public = public_halves(cloud.ec2, sorted(users))
    own = public_half(file)
    why = (
        "there is no such file"
        if not file.exists()
        else "it is another key"
        if own
        else "it is no readable private key"
    )
    for name, ids in sorted(users.items()):
        # Without the public half at AWS there is nothing to compare a key with.
        if own is None or public.get(name, own) != own:
            yield (
                f"ec2_private_key_file is {str(file)!r}: {why}, but {', '.join(sorted(ids))} can be opened only with "
                f"the private half of the key pair {name}: allowed is the file that has it, or to begin anew after "
                "playbooks/destroy.yml"
            )


def dns_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the hosted zone exists, and that the name which is to point to the instances is in it."""
    zone = str(cloud.variables.get("ec2_dns_zone") or "").rstrip(".")
    name = str(cloud.variables.get("ec2_dns_name") or "").rstrip(".")
    if not zone:
        return
    pages = cloud.client("route53").get_paginator("list_hosted_zones").paginate()
    zones = sorted({one["Name"].rstrip(".") for page in pages for one in page["HostedZones"]})
    if zone not in zones:
        yield (
            f"ec2_dns_zone is {zone!r}: this account has no such hosted zone in Route 53; "
            f"allowed are {', '.join(zones) or 'none, until one is made there'}"
        )
    if name and name != zone and not name.endswith(f".{zone}"):
        yield f"ec2_dns_name is {name!r}: allowed is a name in ec2_dns_zone, such as www.{zone}"


CHECKS: tuple[Callable[[Cloud], Iterator[str]], ...] = (
    type_problems,
    plan_problems,
    image_problems,
    vcpu_problems,
    address_problems,
    network_problems,
    vpc_problems,
    group_problems,
    key_problems,
    dns_problems,
)


def ec2_problems(cloud: Cloud) -> list[str]:
    """Check what only AWS can tell; each problem is said once."""
    problems: list[str] = []
    for check in CHECKS:
        try:
            problems += check(cloud)
        except ClientError as error:
            problems.append(unanswered(cloud, error))
        except BotoCoreError as error:
            problems.append(f"AWS in {cloud.region} does not answer as it should: {error}")
            break
    return list(dict.fromkeys(problems))


def unanswered(cloud: Cloud, error: ClientError) -> str:
    """Say why AWS did not answer a question."""
    if error.response["Error"]["Code"] in DENIED:
        return (
            f"These credentials may not call {error.operation_name} in {cloud.region}: "
            "docs/iam.md has a policy with all that is needed"
        )
    return f"AWS in {cloud.region} does not answer as it should: {error}"
