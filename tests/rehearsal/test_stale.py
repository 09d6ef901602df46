"""AWS's answers lag behind its calls when a test asks the rehearsal for it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.exceptions import ClientError

from rehearsal import stale
from rehearsal.faults import Fault
from tests.rehearsal.paper import PaperFleet, describe, refused, run

SECONDS = 9.0
Later = Callable[[], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Stop the clock; the returned function lets the time of every fault pass."""
    now, waiting = [0.0], list[Callable[[], None]]()

    def wait(_seconds: float, then: Callable[[], None]) -> Mock:
        waiting.append(then)
        return Mock()

    def pass_time() -> None:
        now[0] += SECONDS
        for then in waiting:
            then()

    monkeypatch.setattr(stale, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(stale, "threading", SimpleNamespace(Timer=wait))
    return pass_time


def add(fleet: PaperFleet, action: str) -> None:
    fleet.faults.add(Fault("stale", action=action, seconds=SECONDS))


def test_new_instance_is_not_found_at_first(ec2: Any, fleet: PaperFleet, later: Later) -> None:
    iam = boto3.client("iam", region_name="eu-central-1")
    iam.create_instance_profile(InstanceProfileName="profile")
    add(fleet, "RunInstances")
    instance = run(ec2, IamInstanceProfile={"Name": "profile"})
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=[instance["InstanceId"]])
    assert ec2.describe_instances()["Reservations"] == []
    assert describe(ec2, run(ec2))["State"]["Name"] == "running"
    later()
    assert describe(ec2, instance)["State"]["Name"] == "running"


def test_instance_shows_its_earlier_address_for_a_while(ec2: Any, fleet: PaperFleet, later: Later) -> None:
    instance = run(ec2)
    address = ec2.allocate_address(Domain="vpc")
    add(fleet, "AssociateAddress")
    ec2.associate_address(InstanceId=instance["InstanceId"], AllocationId=address["AllocationId"])
    assert describe(ec2, instance)["PublicIpAddress"] == "10.99.0.4"
    assert ec2.describe_addresses()["Addresses"][0]["InstanceId"] == instance["InstanceId"]
    later()
    assert describe(ec2, instance)["PublicIpAddress"] == address["PublicIp"]


def test_profile_is_invalid_until_its_role_has_arrived(ec2: Any, fleet: PaperFleet, later: Later) -> None:
    iam = boto3.client("iam", region_name="eu-central-1")
    iam.create_role(RoleName="role", AssumeRolePolicyDocument="{}")
    arn = iam.create_instance_profile(InstanceProfileName="profile")["InstanceProfile"]["Arn"]
    add(fleet, "iam:AddRoleToInstanceProfile")
    instance = run(ec2)["InstanceId"]
    iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="role")
    with pytest.raises(ClientError, match=r"Value \(profile\) for parameter iamInstanceProfile.name is invalid"):
        run(ec2, IamInstanceProfile={"Name": "profile"})
    # The words that amazon.aws.ec2_instance waits for once.
    with pytest.raises(ClientError, match=r"iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN"):
        run(ec2, IamInstanceProfile={"Arn": arn})
    by_arn = {"IamInstanceProfile": {"Arn": arn}, "InstanceId": instance}
    refused("InvalidParameterValue", ec2.associate_iam_instance_profile, **by_arn)
    later()
    assert len(ec2.describe_instances()["Reservations"]) == 1
    assert ec2.associate_iam_instance_profile(**by_arn)["IamInstanceProfileAssociation"]["InstanceId"] == instance
