"""What only EC2 can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from preflight.services import no_room
from preflight.variables import Variables


def instance_size(client: Any, instance_type: str) -> tuple[int, int]:
    """Ask EC2 how large an instance type is.

    Args:
        client: A boto3 EC2 client.
        instance_type: Such as ``t2.micro``.

    Returns:
        Its number of vCPUs, and its memory in MiB.

    Raises:
        ValueError: The region does not know the type; the message says what is allowed.
        botocore.exceptions.ClientError: EC2 refuses the question for another reason.
    """
    try:
        answer = client.describe_instance_types(InstanceTypes=[instance_type])
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidInstanceType":
            raise
        family = [{"Name": "instance-type", "Values": ["t2.*"]}]
        found = client.describe_instance_types(Filters=family)["InstanceTypes"]
        known = sorted(one["InstanceType"] for one in found)
        raise ValueError(
            f"ec2_instance_type is {instance_type!r}: {client.meta.region_name} has no such type; "
            f"allowed are for example {', '.join(known)}"
        ) from error
    described = answer["InstanceTypes"][0]
    return int(described["VCpuInfo"]["DefaultVCpus"]), int(described["MemoryInfo"]["SizeInMiB"])


def ec2_problems(variables: Variables) -> Iterator[str]:
    """Check what only EC2 can tell.

    Args:
        variables: Values by name, already checked one by one.

    Yields:
        A sentence for each problem.
    """
    client = boto3.client("ec2", region_name=variables["ec2_region"])
    instance_type = variables["ec2_instance_type"]
    try:
        yield from no_room(variables, f"a {instance_type}", *instance_size(client, instance_type))
    except ValueError as error:
        yield str(error)
    except (BotoCoreError, ClientError) as error:
        yield f"EC2 in {variables['ec2_region']} does not answer as it should: {error}"
