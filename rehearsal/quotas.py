"""What EC2 refuses to an account because of its plan and its quotas."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES

from rehearsal.account import FREE_TIER, GROUPS, NEW, NOT_ELIGIBLE, QUOTAS, VCPUS, Quota
from rehearsal.adapter import all_instances
from rehearsal.state import Settings

Original = Callable[..., Any]

STANDARD_FAMILIES = re.compile(r"([acdhmrtz]|i[ms]?)\d")
"""Types that the quota of vCPUs counts:
https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""


class AccountHooks:
    """Hooks with which Service Quotas answers, and EC2 refuses what goes beyond."""

    def __init__(self, settings: Settings) -> None:
        """Take the account of a rehearsal."""
        self._settings = settings

    def limit(self, quota: Quota) -> int:
        """Give a quota's value in this account."""
        usual = quota.new if self._settings.account == NEW else quota.paid
        return self._settings.quotas.get(quota.code, usual)

    def get_quota(self, original: Original, backend: Any, service_code: str, quota_code: str) -> Any:
        """Answer GetServiceQuota; moto knows only the quotas of VPCs, and of those the defaults."""
        quota = QUOTAS.get(quota_code)
        if quota is None or quota.service != service_code:
            return original(backend, service_code, quota_code)
        where = f"{backend.region_name}:{backend.account_id}"
        return {
            "Adjustable": True,
            "GlobalQuota": False,
            "QuotaArn": f"arn:aws:servicequotas:{where}:{service_code}/{quota_code}",
            "QuotaCode": quota_code,
            "QuotaName": quota.name,
            "ServiceCode": service_code,
            "Unit": "None",
            "Value": float(self.limit(quota)),
        }

    def check(self, quota: Quota, wanted: int) -> None:
        """Refuse to have more of something than the quota allows.

        Raises:
            EC2ClientError: The wanted total is above the quota.
        """
        if wanted > self.limit(quota):
            raise EC2ClientError(quota.error, quota.message.format(self.limit(quota)))

    def check_vcpus(self, region: str, instance_type: str, count: int) -> None:
        """Refuse to run so many more instances in a region."""
        if not STANDARD_FAMILIES.match(instance_type):
            return
        alive = (one for one in all_instances() if one.region_name == region and one.state in {"pending", "running"})
        running = [str(one.instance_type) for one in alive]
        types = [*filter(STANDARD_FAMILIES.match, running), *[instance_type] * count]
        self.check(VCPUS, sum(int(INSTANCE_TYPES[one]["VCpuInfo"]["DefaultVCpus"]) for one in types))

    def check_eligible(self, instance_type: str) -> None:
        """Refuse a type to a free plan that may not launch it."""
        if self._settings.account == NEW and instance_type not in FREE_TIER:
            raise EC2ClientError("InvalidParameterCombination", NOT_ELIGIBLE)

    def create_group(self, original: Original, backend: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a security group unless there are as many as may be; each VPC gets its default group in any case."""
        if not kwargs.get("is_default"):
            self.check(GROUPS, len(backend.describe_security_groups()) + 1)
        return original(backend, *args, **kwargs)
