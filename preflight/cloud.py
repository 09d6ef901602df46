"""What only AWS can tell: whether it would make the instances that are asked for, and let them be reached."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from preflight.keys import public_half, public_halves
from preflight.network import items
from preflight.services import no_room
from preflight.variables import Variables

STANDARD_FAMILIES = re.compile(r"([acdhmrtz]|i[ms]?)\d")
VCPU_QUOTA = "L-1216C47A"
"""Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances, counted in vCPUs:
https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""

DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}

ALIVE = ["pending", "running", "stopping", "stopped"]


class Cloud:
    """AWS, asked at most once each thing that several checks need."""

    def __init__(self, variables: Variables) -> None:
        """Begin.

        Args:
            variables: Values by name, already checked one by one.
        """
        self.variables = variables
        self.region = str(variables["ec2_region"])
        self.ec2 = self.client("ec2")
        self._types: dict[str, dict[str, Any]] = {}

    def client(self, service: str) -> Any:
        """Make a client.

        Args:
            service: botocore's name of it.

        Returns:
            The client, for the region.
        """
        return boto3.client(service, region_name=self.region)

    def type(self, name: str) -> dict[str, Any]:
        """Ask what an instance type has.

        Args:
            name: Such as ``t2.micro``.

        Returns:
            As DescribeInstanceTypes describes it.
        """
        if name not in self._types:
            (self._types[name],) = self.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
        return self._types[name]

    def vcpus(self, name: str) -> int:
        """Ask how many vCPUs an instance type has.

        Args:
            name: Such as ``t2.micro``.

        Returns:
            The number.
        """
        return int(self.type(name)["VCpuInfo"]["DefaultVCpus"])

    def instances(self, states: list[str]) -> list[dict[str, Any]]:
        """List instances, anybody's.

        Args:
            states: Those wanted.

        Returns:
            As DescribeInstances describes them.
        """
        filters = [{"Name": "instance-state-name", "Values": states}]
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=filters)
        return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]

    def is_ours(self, instance: dict[str, Any]) -> bool:
        """Tell whether an instance is one of those that the project counts.

        Args:
            instance: As DescribeInstances describes it.

        Returns:
            Whether its tags say so.
        """
        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
        return tags.get("Project") == self.variables["ec2_project"] and tags.get("Role") == "app"


def type_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the region has the instance type, and that the services fit into it.

    Args:
        cloud: AWS.

    Yields:
        A sentence for each problem.

    Raises:
        botocore.exceptions.ClientError: EC2 refuses the question.
    """
    name = cloud.variables["ec2_instance_type"]
    try:
        memory_mib = int(cloud.type(name)["MemoryInfo"]["SizeInMiB"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidInstanceType":
            raise
        family = [{"Name": "instance-type", "Values": ["t2.*"]}]
        known = sorted(
            one["InstanceType"] for one in cloud.ec2.describe_instance_types(Filters=family)["InstanceTypes"]
        )
        yield (
            f"ec2_instance_type is {name!r}: {cloud.region} has no such type; "
            f"allowed are for example {', '.join(known)}"
        )
        return
    yield from no_room(cloud.variables, f"a {name}", cloud.vcpus(name), memory_mib)
    yield from zone_problems(cloud)
    yield from vcpu_problems(cloud, cloud.client("service-quotas"))


def zone_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the instance type is offered wherever instances are to be.

    Args:
        cloud: AWS.

    Yields:
        A sentence when it is not.
    """
    name = cloud.variables["ec2_instance_type"]
    there = [{"Name": "state", "Values": ["available"]}, {"Name": "zone-type", "Values": ["availability-zone"]}]
    zones = sorted(one["ZoneName"] for one in cloud.ec2.describe_availability_zones(Filters=there)["AvailabilityZones"])
    of_type = [{"Name": "instance-type", "Values": [name]}]
    pages = cloud.ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=of_type
    )
    offered = sorted(one["Location"] for page in pages for one in page["InstanceTypeOfferings"])
    chosen = [str(zone) for zone in items(cloud.variables.get("ec2_zones") or [])]
    wanted = chosen or zones[: int(cloud.variables["ec2_count"])]
    said = f"ec2_zones is {chosen}" + ("" if chosen else f", which means {', '.join(wanted)}")
    unknown = [zone for zone in wanted if zone not in zones]
    without = [zone for zone in wanted if zone in zones and zone not in offered]
    if unknown:
        yield f"{said}: {cloud.region} has no zone {', '.join(unknown)}; allowed are {', '.join(zones)}"
    if without:
        yield (
            f"{said}: {name} (ec2_instance_type) is not offered in {', '.join(without)}; "
            f"allowed are {', '.join(offered) or 'other types'}"
        )


def vcpu_problems(cloud: Cloud, quotas: Any) -> Iterator[str]:
    """Check that the account may run as many vCPUs as are asked for.

    Args:
        cloud: AWS.
        quotas: A boto3 client of Service Quotas. A dry run of RunInstances checks permissions only.

    Yields:
        A sentence when it may not.

    Raises:
        botocore.exceptions.ClientError: Service Quotas refuses the question.
    """
    name, count = cloud.variables["ec2_instance_type"], int(cloud.variables["ec2_count"])
    if not STANDARD_FAMILIES.match(name):
        return
    try:
        quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=VCPU_QUOTA)["Quota"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchResourceException":
            raise
        return
    most, each = int(quota["Value"]), cloud.vcpus(name)
    others = sum(
        cloud.vcpus(one["InstanceType"])
        for one in cloud.instances(["pending", "running"])
        if not cloud.is_ours(one)
        and one.get("InstanceLifecycle") != "spot"
        and STANDARD_FAMILIES.match(one["InstanceType"])
    )
    if count * each + others > most:
        yield (
            f"ec2_count is {count} and ec2_instance_type is {name!r}: that is {count * each} vCPUs beside {others} of "
            f"other instances, but the account may run {most} in {cloud.region} (quota {VCPU_QUOTA}); "
            f"allowed is a count up to {max(0, (most - others) // each)}, or a higher quota: AWS raises it on request"
        )


def vpc_problems(cloud: Cloud) -> Iterator[str]:
    """Check that there is a network for the instances.

    Args:
        cloud: AWS.

    Yields:
        A sentence when there is none.
    """
    if cloud.variables.get("ec2_vpc_cidr"):
        return
    default = [{"Name": "is-default", "Values": ["true"]}]
    if not cloud.ec2.describe_vpcs(Filters=default)["Vpcs"]:
        yield (
            f"ec2_vpc_cidr is empty, but {cloud.region} has no default VPC: allowed is a block for a VPC of the "
            "project's own, such as 10.20.0.0/16, or a new default VPC: aws ec2 create-default-vpc"
        )


def key_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the private key is the one that opens the instances that run.

    Args:
        cloud: AWS.

    Yields:
        A sentence for each key pair without its private half.
    """
    file = Path(cloud.variables["ec2_private_key_file"]).expanduser()
    users: dict[str, list[str]] = {}
    for one in cloud.instances(ALIVE):
        if cloud.is_ours(one) and one.get("KeyName"):
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
    """Check that the zone is there for the name that is to point to the instances.

    Args:
        cloud: AWS.

    Yields:
        A sentence for each problem.
    """
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


CHECKS: tuple[Callable[[Cloud], Iterator[str]], ...] = (type_problems, vpc_problems, key_problems, dns_problems)


def ec2_problems(variables: Variables) -> Iterator[str]:
    """Check what only AWS can tell.

    Args:
        variables: Values by name, already checked one by one.

    Yields:
        A sentence for each problem.
    """
    cloud = Cloud(variables)
    for check in CHECKS:
        try:
            yield from check(cloud)
        except ClientError as error:
            if error.response["Error"]["Code"] in DENIED:
                yield (
                    f"These credentials may not call {error.operation_name} in {cloud.region}: "
                    "docs/iam.md has a policy with all that is needed"
                )
            else:
                yield f"AWS in {cloud.region} does not answer as it should: {error}"
        except BotoCoreError as error:
            yield f"AWS in {cloud.region} does not answer as it should: {error}"
            return
