"""How many vCPUs the rehearsal's account may run, asked for and enforced as AWS does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES

from preflight.cloud import STANDARD_FAMILIES, VCPU_QUOTA
from rehearsal.adapter import all_instances

MOST_VCPUS = 32
"""More than a new account has, and more than a machine that this runs on can bear."""

QUOTA = {
    "Adjustable": True,
    "GlobalQuota": False,
    "QuotaCode": VCPU_QUOTA,
    "QuotaName": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    "ServiceCode": "ec2",
    "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
    "Unit": "None",
    "Value": float(MOST_VCPUS),
}


def get_service_quota(original: Callable[..., Any], backend: Any, service_code: str, quota_code: str) -> Any:
    """Answer for the one quota of EC2 that is kept; moto knows only those of VPCs."""
    if (service_code, quota_code) == ("ec2", VCPU_QUOTA):
        return QUOTA
    return original(backend, service_code, quota_code)


def check_vcpus(region: str, instance_type: str, count: int) -> None:
    """Refuse instances beyond the quota.

    Args:
        region: Where; each region has a quota of its own.
        instance_type: Of the new instances.
        count: How many there are to be.

    Raises:
        EC2ClientError: There would be too many vCPUs.
    """
    if not STANDARD_FAMILIES.match(instance_type):
        return
    alive = (one for one in all_instances() if one.region_name == region and one.state in {"pending", "running"})
    running = [str(one.instance_type) for one in alive]
    types = [*filter(STANDARD_FAMILIES.match, running), *[instance_type] * count]
    if sum(int(INSTANCE_TYPES[one]["VCpuInfo"]["DefaultVCpus"]) for one in types) > MOST_VCPUS:
        raise EC2ClientError(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {MOST_VCPUS} allows for the "
            "instance bucket that the specified instance type belongs to.",
        )
