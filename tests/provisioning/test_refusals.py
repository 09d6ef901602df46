"""AWS refuses each call of provisioning, repair, resize and destroy once, and nothing that costs is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from bench.ec2 import PROJECT, REGION
from bench.playbook import Outcome
from tests.provisioning.conftest import Cloud

pytestmark = [pytest.mark.docker, pytest.mark.long]

each_part = pytest.mark.parametrize("changing", [True, False], ids=["changes", "questions"])

MEDIUM = {"ec2_instance_type": "t2.medium"}
BEFORE = {"sts:GetCallerIdentity", "ec2:DescribeRegions"}
"""Calls of the inventory before any play, when nothing has been made yet."""


def told(outcome: Outcome) -> str:
    """Return the last error as one line of text."""
    return " ".join(outcome.said.rpartition("[ERROR]")[2].split())


def check(aws: Cloud, outcome: Outcome) -> str:
    """Check that a refused run hides nothing and lists what exists; return the action that was refused."""
    said = told(outcome)
    assert "An error occurred (Blocked) when calling the " in said, outcome.said
    action = said.partition("when calling the ")[2].partition(" ")[0]
    print(f"\n{action}: {said.partition('It failed at: ')[2][:200]}", end="", flush=True)
    assert ": Words of AWS." in said
    assert "Module result" not in said, "Ansible's words for a traceback instead of an answer"
    assert "To change: nothing here: AWS has blocked the account" in said
    resources = aws.ours()
    seen = {str(one["id"]) for things in resources.values() for one in things}
    assert aws.costly() <= seen
    for one in seen:
        assert one in said, f"{one} exists and is not named: {said}"
    assert (f"This exists of {PROJECT} in {REGION}:" if seen else f"Nothing of {PROJECT} exists") in said
    return action


def changes(action: str) -> bool:
    """Tell whether a call may change something."""
    return not action.partition(":")[2].startswith(("Describe", "Get", "List"))


def survive(aws: Cloud, playbook: str, changing: bool, **variables: Any) -> list[str]:
    """Run a playbook to learn its calls, then once for each call, from the same state, with that call refused."""
    kept = aws.keep()
    peaceful = aws.playbook(playbook, **variables)
    assert peaceful.ok, peaceful.said
    actions = dict.fromkeys(call for call in aws.calls() if changes(call) == changing and call not in BEFORE)
    aws.put_back(kept)
    refused = []
    for action in actions:
        # The inventory asks for instances first, twice.
        aws.refuse(action, nth=3 if action == "ec2:DescribeInstances" else 1)
        outcome = aws.playbook(playbook, **variables)
        if not outcome.ok:
            refused.append(check(aws, outcome))
            assert refused[-1] == action.partition(":")[2]
        aws.faults.clear()
    finished = aws.playbook(playbook, **variables)
    assert finished.ok, finished.said
    return refused


def instances(aws: Cloud) -> list[tuple[str, str]]:
    """List type and state of the project's instances."""
    return [(one["raw"]["InstanceType"], one["raw"]["State"]["Name"]) for one in aws.ours()["instance"]]


@each_part
def test_provisioning_goes_on_from_every_refusal(empty: Cloud, changing: bool) -> None:
    """At the end each thing exists once, however often the run was interrupted."""
    refused = survive(empty, "provision", changing)
    assert len(refused) > 10
    assert instances(empty) == [("t2.micro", "running")]
    assert {kind: len(things) for kind, things in empty.ours().items() if len(things) != 1} == {"snapshot": 0}


def test_new_profile_is_waited_for(provisioned: Cloud) -> None:
    """IAM needs some seconds to make it known to EC2."""
    ec2 = provisioned.client("ec2")
    (found,) = ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"]
    ec2.disassociate_iam_instance_profile(AssociationId=found["AssociationId"])
    words = "Value (flask-fleet) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN"
    provisioned.refuse("ec2:AssociateIamInstanceProfile", "InvalidParameterValue", words, count=2)
    again = provisioned.playbook("provision")
    assert again.ok, again.said
    assert provisioned.calls().count("ec2:AssociateIamInstanceProfile") == 3


@each_part
def test_repair_goes_on_from_every_refusal(provisioned: Cloud, changing: bool) -> None:
    """The instance was terminated by hand, its address released, the firewall opened, and the key pair deleted."""
    ec2, resources = provisioned.client("ec2"), provisioned.ours()
    (instance,), (group,), (key,) = (resources[kind] for kind in ("instance", "security group", "key pair"))
    (address,) = resources["address"]
    ec2.modify_instance_attribute(InstanceId=instance["id"], DisableApiTermination={"Value": False})
    ec2.disassociate_address(AssociationId=address["raw"]["AssociationId"])
    ec2.terminate_instances(InstanceIds=[instance["id"]])
    ec2.revoke_security_group_ingress(GroupId=group["id"], IpPermissions=group["raw"]["IpPermissions"])
    ec2.delete_key_pair(KeyName=key["id"])
    assert len(survive(provisioned, "provision", changing)) > 3
    assert instances(provisioned) == [("t2.micro", "running")]
    assert [one["id"] for one in provisioned.ours()["address"]] == [address["id"]]


def test_resize_that_is_refused_is_undone(answering: Cloud) -> None:
    """Whichever call is refused, the instance runs again as it was.

    This uses playbooks/resize.yml, which ends there: at a stop moto takes the Elastic IP from the instance, so that
    nothing can go on from there (rehearsal/patches.py mends it).
    """
    kept = answering.keep()
    for action in ("StopInstances", "ModifyInstanceAttribute", "StartInstances"):
        answering.put_back(kept)
        answering.refuse(f"ec2:{action}")
        refused = answering.playbook("resize", **MEDIUM)
        assert check(answering, refused) == action
        assert "and runs again as t2.micro" in told(refused)
        assert instances(answering) == [("t2.micro", "running")]


@each_part
def test_destroy_goes_on_from_every_refusal(provisioned: Cloud, changing: bool) -> None:
    """At the end the account is empty except for the data."""
    assert len(survive(provisioned, "destroy", changing, confirm=PROJECT)) > 10
    assert {kind for kind, things in provisioned.ours().items() if things} == {"snapshot"}
