"""The AWS account that the rehearsal plays: its plan, what a free plan may launch, and its quotas."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rehearsal import ACCOUNT_ID

PAID, NEW = ACCOUNTS = ("paid", "new")
"""An account of the paid plan, or one made today, on the free plan."""

FREE_TIER = frozenset({"c7i-flex.large", "m7i-flex.large", "t3.micro", "t3.small", "t4g.micro", "t4g.small"})
"""What DescribeInstanceTypes calls eligible to accounts made since 15 July 2025:
https://github.com/aws-samples/eks-workshop-v2/issues/1644"""

NOT_ELIGIBLE = (
    "The specified instance type is not eligible for Free Tier. For a list of Free Tier instance types, run "
    "'describe-instance-types' with the filter 'free-tier-eligible=true'."
)
"""What AWS says to a free plan: https://github.com/nilbuild/developer-roadmap/pull/10171"""

FREE_PLAN_DAYS = 180
"""A free plan ends after six months: https://aws.amazon.com/free/free-tier-faqs/"""


PLAN_TARGET = "AWSFreeTierService.GetAccountPlanState"
"""The header X-Amz-Target of the question for the plan."""


def plan_state(account: str) -> dict[str, Any]:
    """Answer ``freetier:GetAccountPlanState``, which moto does not know.

    https://docs.aws.amazon.com/awsaccountbilling/latest/APIReference/API_freetier_GetAccountPlanState.html
    """
    if account != NEW:
        return {"accountId": ACCOUNT_ID, "accountPlanType": "PAID", "accountPlanStatus": "ACTIVE"}
    return {
        "accountId": ACCOUNT_ID,
        "accountPlanType": "FREE",
        "accountPlanStatus": "ACTIVE",
        "accountPlanRemainingCredits": {"amount": 100.0, "unit": "USD"},
        "accountPlanExpirationDate": (datetime.now(UTC) + timedelta(days=FREE_PLAN_DAYS)).isoformat(),
    }


@dataclass(frozen=True)
class Quota:
    """A quota of an account in each region.

    Attributes:
        name: What AWS calls it.
        paid: Its value in an account of the paid plan.
        new: Its value in a new account.
        error: AWS's error code beyond it.
        message: AWS's message, with the value as ``{0}``.
    """

    service: str
    code: str
    name: str
    paid: int
    new: int
    error: str
    message: str


VCPUS = Quota(
    "ec2",
    "L-1216C47A",
    "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    32,  # more would be too many for a machine that this runs on
    5,
    "VcpuLimitExceeded",
    "You have requested more vCPU capacity than your current vCPU limit of {0} allows for the instance bucket that the "
    "specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an "
    "adjustment to this limit.",
)
ADDRESSES = Quota(
    "ec2",
    "L-0263D0A3",
    "EC2-VPC Elastic IPs",
    5,
    5,
    "AddressLimitExceeded",
    "The maximum number of addresses has been reached.",
)
VPCS = Quota(
    "vpc",
    "L-F678F1CE",
    "VPCs per Region",
    5,
    5,
    "VpcLimitExceeded",
    "The maximum number of VPCs has been reached.",
)
GROUPS = Quota(
    "vpc",
    "L-E79EC296",
    "VPC security groups per Region",
    2500,
    2500,
    "SecurityGroupLimitExceeded",
    "The maximum number of security groups has been reached.",
)
QUOTAS = {one.code: one for one in (VCPUS, ADDRESSES, VPCS, GROUPS)}
"""By code. Values: https://docs.aws.amazon.com/general/latest/gr/ec2-service.html#limits_ec2 and
https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html; messages:
https://github.com/scrapoxy/scrapoxy/issues/202, https://github.com/opstrace/opstrace/issues/273,
https://github.com/virt-s1/rhel-edge/issues/3947 and https://github.com/otiai10/hotsub/issues/36."""
