"""A new account on the free plan, and quotas, as EC2 and Service Quotas show them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from rehearsal.account import ADDRESSES, FREE_TIER, GROUPS, VCPUS, VPCS
from rehearsal.api import with_plan
from rehearsal.faults import Faults
from rehearsal.front import Front, Recorder
from rehearsal.state import Settings
from tests.rehearsal.paper import describe, refused, run
from tests.rehearsal.test_calls import request


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, account="new", quotas={GROUPS.code: 2})


def test_free_plan_launches_and_becomes_only_what_is_eligible(ec2: Any) -> None:
    filters = [{"Name": "free-tier-eligible", "Values": ["true"]}]
    eligible = ec2.describe_instance_types(Filters=filters)["InstanceTypes"]
    assert {one["InstanceType"] for one in eligible} == FREE_TIER
    with pytest.raises(ClientError, match=r"InvalidParameterCombination.*not eligible for Free Tier\. For a list"):
        run(ec2)
    instance = run(ec2, InstanceType="t3.micro")
    ec2.stop_instances(InstanceIds=[instance["InstanceId"]])
    change = {"InstanceId": instance["InstanceId"], "InstanceType": {"Value": "t3.medium"}}
    refused("InvalidParameterCombination", ec2.modify_instance_attribute, **change)
    ec2.modify_instance_attribute(InstanceId=instance["InstanceId"], InstanceType={"Value": "t3.small"})
    assert describe(ec2, instance)["InstanceType"] == "t3.small"


def test_quotas_are_told_and_enforced(ec2: Any) -> None:
    quotas = boto3.client("service-quotas", region_name="eu-central-1")

    def value(service: str, code: str) -> int:
        return int(quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])

    assert [value(one.service, one.code) for one in (VCPUS, ADDRESSES, VPCS, GROUPS)] == [5, 5, 5, 2]
    refused("NoSuchResourceException", quotas.get_service_quota, ServiceCode="vpc", QuotaCode=VCPUS.code)
    for _ in range(5):
        ec2.allocate_address(Domain="vpc")
    refused("AddressLimitExceeded", ec2.allocate_address, Domain="vpc")
    ec2.create_security_group(GroupName="one", Description="beside the default group")
    refused("SecurityGroupLimitExceeded", ec2.create_security_group, GroupName="two", Description="too many")
    for part in range(4):
        ec2.create_vpc(CidrBlock=f"10.99.{16 * part}.0/20")
    refused("VpcLimitExceeded", ec2.create_vpc, CidrBlock="10.99.128.0/20")


def test_stopped_instances_need_no_vcpus_until_they_start(ec2: Any) -> None:
    first, second = (run(ec2, InstanceType="t3.micro")["InstanceId"] for _ in range(2))
    refused("VcpuLimitExceeded", run, ec2=ec2, InstanceType="t3.micro")
    ec2.stop_instances(InstanceIds=[first])
    ec2.start_instances(InstanceIds=[second])
    run(ec2, InstanceType="t3.micro")
    refused("VcpuLimitExceeded", ec2.start_instances, InstanceIds=[first])


@pytest.mark.parametrize(("account", "plan"), [("new", "FREE"), ("paid", "PAID")])
def test_plan_is_told_although_moto_does_not_know_it(tmp_path: Path, account: str, plan: str) -> None:
    recorder = Recorder(tmp_path / "calls.jsonl")
    asked = Front(with_plan(lambda *_: [b"moto"], account), lambda _: None, Faults(), recorder)
    told = asked(request("freetier", "{}", HTTP_X_AMZ_TARGET="AWSFreeTierService.GetAccountPlanState"), lambda *_: None)
    assert json.loads(b"".join(told))["accountPlanType"] == plan
    assert json.loads((tmp_path / "calls.jsonl").read_text())["needs"] == ["freetier:GetAccountPlanState"]
