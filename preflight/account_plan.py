"""Checks what the account's plan allows: on the Free plan AWS launches only types and images eligible for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from preflight.account import HOME_REGION
from preflight.cloud import Cloud
from preflight.cost import with_price
from preflight.instance_types import ARCHITECTURE

PLANS = "https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/billing-free-tier.html"

PATIENCE = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
"""Short timeouts, because a run goes on without an answer."""


def plan_client(cloud: Cloud) -> Any:
    """Make the client of the Free Tier service, which answers in one region only."""
    return cloud.client("freetier", region_name=HOME_REGION, config=PATIENCE)


def plan_problems(cloud: Cloud) -> Iterator[str]:
    """Check that the account's plan allows the type and the image."""
    if cloud.wanted_type is None:
        return
    name, is_eligible = cloud.variables["ec2_instance_type"], cloud.wanted_type.get("FreeTierEligible")
    try:
        state = plan_client(cloud).get_account_plan_state()
    except (BotoCoreError, ClientError) as error:
        if not is_eligible:
            cloud.notes.append(
                f"AWS does not say which plan the account is on (freetier:GetAccountPlanState: {reason(error)}). The "
                f"paid plan launches a {name}, the Free plan does not: it has {eligible(cloud)}"
            )
        return
    if state.get("accountPlanType") != "FREE":
        return
    if state.get("accountPlanStatus") == "EXPIRED":
        yield f"The account's Free plan has ended, so AWS launches nothing; allowed is the paid plan: {PLANS}"
        return
    if not is_eligible:
        yield (
            f"ec2_instance_type is {name!r}, which the account's Free plan does not launch; allowed are "
            f"{eligible(cloud)}, or the paid plan: {PLANS}"
        )
    if cloud.missing and cloud.image and cloud.image.get("FreeTierEligible") is False:
        yield (
            f"The image {cloud.image['Name']} ({cloud.image['ImageId']}) is none that the Free plan launches; "
            f"allowed is another one with ec2_ami_id, or the paid plan: {PLANS}"
        )
    cloud.notes.append(end_of_plan(state))


def end_of_plan(state: dict[str, Any]) -> str:
    """Say how long the Free plan lasts, as far as AWS tells."""
    credit, end = state.get("accountPlanRemainingCredits"), state.get("accountPlanExpirationDate")
    left = f", which has {credit['amount']:.2f} {credit['unit']} left" if credit else ""
    at_the_latest = f", or at the latest on {end:%Y-%m-%d}" if end else ""
    return (
        f"The account is on the Free plan{left}. When its credits are used up{at_the_latest}, AWS closes the account "
        f"and all that runs in it stops, unless the account is on the paid plan by then: {PLANS}"
    )


def eligible(cloud: Cloud) -> str:
    """List the types that the Free plan launches, with their prices."""
    asked: list[dict[str, Any]] = [
        {"Name": "free-tier-eligible", "Values": ["true"]},
        {"Name": "processor-info.supported-architecture", "Values": [ARCHITECTURE]},
    ]
    found = cloud.ec2.describe_instance_types(Filters=asked)["InstanceTypes"]
    names = sorted(one["InstanceType"] for one in found)
    return ", ".join(with_price(cloud.prices, cloud.region, name) for name in names) or "no type of this region"


def reason(error: Exception) -> str:
    """Name AWS's error code, or the type of another error."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
