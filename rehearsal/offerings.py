"""Which instance types a region and its zones have; moto knows it, but only DescribeInstanceTypeOfferings says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError, InvalidInstanceTypeError
from moto.ec2.models import EC2Backend
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

Original = Callable[..., Any]


def places(location_type: str, region: str, instance_type: str) -> list[str]:
    """List where a region offers a type; ``location_type`` is ``region`` or ``availability-zone``."""
    offered = INSTANCE_TYPE_OFFERINGS[location_type].get(region, [])
    return sorted(one["Location"] for one in offered if one["InstanceType"] == instance_type)


def describe_types(
    original: Original, backend: EC2Backend, instance_types: list[str] | None = None, *args: Any, **kwargs: Any
) -> Any:
    """Describe the types that the region has, as AWS does; moto describes all of them everywhere."""
    unknown = {one for one in instance_types or () if not places("region", backend.region_name, one)}
    if unknown:
        raise InvalidInstanceTypeError(unknown, error_type="InvalidInstanceType")
    found = original(backend, instance_types, *args, **kwargs)
    here = {one["InstanceType"] for one in INSTANCE_TYPE_OFFERINGS["region"].get(backend.region_name, [])}
    return [one for one in found if one["InstanceType"] in here]


def check_offered(backend: EC2Backend, instance_type: str, zone: str) -> None:
    """Refuse a type in a region or in a subnet's zone where it is not offered.

    AWS's answer for a region: https://github.com/trailofbits/algo/issues/1285; for a zone:
    https://github.com/ned1313/Getting-Started-Terraform/issues/44

    Raises:
        EC2ClientError: The type is not offered there.
    """
    zones = places("availability-zone", backend.region_name, instance_type)
    if zone in zones:
        return
    message = (
        f"Your requested instance type ({instance_type}) is not supported in your requested Availability Zone "
        f"({zone}). Please retry your request by not specifying an Availability Zone or choosing {', '.join(zones)}."
        if zones
        else "The requested configuration is currently not supported. Please check the documentation for supported "
        "configurations."
    )
    raise EC2ClientError("Unsupported", message)
