"""An account to check: moto, and the answers that moto does not give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import boto3
from botocore.stub import Stubber

from preflight.account_plan import plan_client
from preflight.cloud import Cloud
from preflight.cost import read_prices
from preflight.ec2 import ec2_problems
from preflight.quotas import Quota
from tests.preflight.input import IMAGE, REGION, stack

PRICES = read_prices()
PAID = {"accountPlanType": "PAID", "accountPlanStatus": "ACTIVE"}


def cloud(**changes: Any) -> Cloud:
    return Cloud(stack(**changes), PRICES)


def problems(**changes: Any) -> list[str]:
    """Check everything in an account with the paid plan."""
    checked = cloud(**changes)
    with plan(checked, PAID):
        return ec2_problems(checked)


@contextmanager
def plan(checked: Cloud, answer: dict[str, Any] | str) -> Iterator[None]:
    """Let the account have a plan; a text is the code of the error that AWS answers."""
    with Stubber(plan_client(checked)) as stubber:
        if isinstance(answer, str):
            stubber.add_client_error("get_account_plan_state", answer)
        else:
            stubber.add_response("get_account_plan_state", {"accountId": "123456789012"} | answer)
        yield


@contextmanager
def quotas(checked: Cloud, *values: tuple[Quota, float]) -> Iterator[None]:
    """Let the account have quotas, which are asked for in this order."""
    with ExitStack() as stack, Stubber(checked.client("service-quotas")) as stubber:
        for quota, value in values:
            asked = {"ServiceCode": quota.service, "QuotaCode": quota.code}
            stubber.add_response("get_service_quota", {"Quota": {"Value": value}}, asked)
        stack.callback(stubber.assert_no_pending_responses)
        yield


def tags(kind: str, **values: str) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": [{"Key": name, "Value": value} for name, value in values.items()]}


def launch(instance_type: str = "t2.micro", count: int = 1, key: str = "", **values: str) -> list[str]:
    more: dict[str, Any] = {"KeyName": key} if key else {}
    if values:
        more["TagSpecifications"] = [tags("instance", **values)]
    client = boto3.client("ec2", region_name=REGION)
    made = client.run_instances(ImageId=IMAGE, InstanceType=instance_type, MinCount=count, MaxCount=count, **more)
    return [one["InstanceId"] for one in made["Instances"]]
