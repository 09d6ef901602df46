"""Checks that the account may have as much as the variables ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from botocore.exceptions import ClientError

from preflight.cloud import Cloud
from preflight.variables import is_true


@dataclass(frozen=True)
class Quota:
    """A quota of one region: service and code as Service Quotas has them, and what it counts."""

    service: str
    code: str
    counts: str


STANDARD_FAMILIES = re.compile(r"([acdhmrtz]|i[ms]?)\d")

VCPUS = Quota("ec2", "L-1216C47A", "vCPU")
"""Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances, counted in vCPUs:
https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""

ADDRESSES = Quota("ec2", "L-0263D0A3", "Elastic IP")
VPCS = Quota("vpc", "L-F678F1CE", "VPC")
GROUPS = Quota("vpc", "L-E79EC296", "security group")
"""The codes of VPC's quotas: https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html"""


def room(cloud: Cloud, quota: Quota, others: int) -> int | None:
    """Ask how many more the account may have beside the ``others`` that it has; None where AWS does not say."""
    try:
        answer = cloud.client("service-quotas").get_service_quota(ServiceCode=quota.service, QuotaCode=quota.code)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchResourceException":
            raise
        return None
    # Where AWS cannot give the value, it says why beside a value of 0.
    return None if "ErrorReason" in answer["Quota"] else int(answer["Quota"]["Value"]) - others


def beyond(cloud: Cloud, quota: Quota, said: str, numbers: tuple[int, int, int], allowed: str) -> str:
    """Say that there would be too many; ``numbers`` are those wanted, those of others, and those there is room for."""
    wanted, others, free = numbers
    counted = f"{wanted} {quota.counts}{'s' * (wanted != 1)}"
    return (
        f"{said}: that is {counted} beside {others} others, but the account may have {others + free} in "
        f"{cloud.region} (quota {quota.code}); allowed is {allowed}, or a higher quota: AWS raises it on request"
    )


def vcpu_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the account may run as many vCPUs as are asked for; a dry run of RunInstances does not tell."""
    name, count = cloud.variables["ec2_instance_type"], int(cloud.variables["ec2_count"])
    if cloud.wanted_type is None or not STANDARD_FAMILIES.match(name):
        return
    others = sum(
        cloud.vcpus(one["InstanceType"])
        for one in cloud.instances
        if one["State"]["Name"] in {"pending", "running"}
        and one not in cloud.ours
        and one.get("InstanceLifecycle") != "spot"
        and STANDARD_FAMILIES.match(one["InstanceType"])
    )
    free, each = room(cloud, VCPUS, others), cloud.vcpus(name)
    if free is not None and count * each > free:
        allowed = f"a count up to {free // each}" if free >= each else "a smaller type"
        said = f"ec2_count is {count} and ec2_instance_type is {name!r}"
        yield beyond(cloud, VCPUS, said, (count * each, others, free), allowed)


def address_problems(cloud: Cloud) -> Iterator[str]:
    """Check that each instance can have its Elastic IP."""
    count = int(cloud.variables["ec2_count"])
    if not is_true(cloud.variables["ec2_elastic_ip"]):
        return
    addresses = cloud.ec2.describe_addresses()["Addresses"]
    others = sum(not cloud.has_tags(one) for one in addresses)
    if count <= len(addresses) - others:
        return
    free = room(cloud, ADDRESSES, others)
    if free is not None and count > free:
        allowed = f"a count up to {free}, ec2_elastic_ip: false" if free > 0 else "ec2_elastic_ip: false"
        said = f"ec2_count is {count} and ec2_elastic_ip is true"
        yield beyond(cloud, ADDRESSES, said, (count, others, free), allowed)


def vpc_problems(cloud: Cloud) -> Iterator[str]:
    """Check that a network of the project's own can be made."""
    if not cloud.makes_vpc:
        return
    free = room(cloud, VPCS, len(cloud.vpcs))
    if free is not None and free < 1:
        said = f"ec2_vpc_cidr is {cloud.variables['ec2_vpc_cidr']!r}"
        yield beyond(cloud, VPCS, said, (1, len(cloud.vpcs), free), "an empty one, for the default VPC")


def group_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the security group can be made; a new network brings one of its own."""
    pages = cloud.ec2.get_paginator("describe_security_groups").paginate()
    groups = [one for page in pages for one in page["SecurityGroups"]]
    wanted = (not any(map(cloud.has_tags, groups))) + cloud.makes_vpc
    if not wanted:
        return
    free = room(cloud, GROUPS, len(groups))
    if free is not None and free < wanted:
        said = f"ec2_project is {cloud.variables['ec2_project']!r}"
        yield beyond(cloud, GROUPS, said, (wanted, len(groups), free), "to remove some that nobody uses")
