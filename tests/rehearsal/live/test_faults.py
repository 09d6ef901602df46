"""Faults as clients see them."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.rehearsal.live.conftest import Lab, until
from tests.rehearsal.live.test_restart import state

pytestmark = pytest.mark.docker


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    """Return AWS's error code."""
    return str(caught.value.response["Error"]["Code"])


def test_capacity_and_throttling_are_errors_of_the_api(lab: Lab) -> None:
    """Boto3 sees each of them as often as it was asked for."""
    lab.command("fault", "add", "capacity", "--type", "t2.micro")
    with pytest.raises(ClientError) as caught:
        lab.run()
    assert code(caught) == "InsufficientInstanceCapacity"
    lab.command("fault", "add", "throttle", "--count", "2", "--action", "DescribeVpcs")
    assert lab.command("fault", "list") == "2  throttle x2  action=ec2:DescribeVpcs\n"
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            lab.ec2.describe_vpcs()
        assert code(caught) == "RequestLimitExceeded"
    assert lab.ec2.describe_vpcs()["Vpcs"]
    assert lab.run()


def test_boot_that_fails(lab: Lab) -> None:
    """Boto3's waiter gives up at once, the reason is there, and no disk is left."""
    lab.command("fault", "add", "boot")
    instance = lab.run(wait=False)
    with pytest.raises(WaiterError, match="terminal failure"):
        lab.ec2.get_waiter("instance_running").wait(InstanceIds=[instance])
    assert lab.describe(instance)["StateReason"]["Code"] == "Server.InternalError"
    of_instance = [{"Name": "attachment.instance-id", "Values": [instance]}]
    assert lab.ec2.describe_volumes(Filters=of_instance)["Volumes"] == []


def test_instance_is_taken_away_like_a_spot_instance(lab: Lab) -> None:
    """A notice is in its metadata before, and the reason is there afterwards."""
    instance = lab.run()
    lab.command("fault", "add", "terminate", "--instance", instance, "--after", "4")
    notice = lab.inside(instance, "curl -sf http://169.254.169.254/latest/meta-data/spot/instance-action")
    assert json.loads(notice)["action"] == "terminate"
    assert lab.describe(instance)["State"]["Name"] == "running"
    assert until(lambda: lab.describe(instance)["State"]["Name"] == "terminated")
    assert lab.describe(instance)["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_states_between_are_visible(lab: Lab) -> None:
    """Code that forgets to wait fails here."""
    seen = []
    for name in ("pending", "stopping", "shutting-down"):
        lab.command("fault", "add", "slow", "--state", name, "--seconds", "3")
    instance = lab.run(wait=False)
    seen.append(lab.describe(instance)["State"]["Name"])
    assert until(lambda: lab.describe(instance)["State"]["Name"] == "running")
    for order in (lab.ec2.stop_instances, lab.ec2.terminate_instances):
        order(InstanceIds=[instance])
        seen.append(lab.describe(instance)["State"]["Name"])
        assert until(lambda: lab.describe(instance)["State"]["Name"] in {"stopped", "terminated"})
    assert seen == ["pending", "stopping", "shutting-down"]
    assert lab.command("fault", "list") == "no faults\n"


def test_calls_are_on_record(lab: Lab) -> None:
    """A policy has to allow them."""
    lab.ec2.describe_vpcs()
    lab.client("sts").get_caller_identity()
    lines = (state(lab) / "calls.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["needs"] for line in lines[-2:]] == [["ec2:DescribeVpcs"], ["sts:GetCallerIdentity"]]
