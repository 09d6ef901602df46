"""After destroy.yml nothing is left that could cost, and the policy allowed exactly what was needed."""

from __future__ import annotations

from bench.ec2 import PROJECT, client, instances, names, tagged
from rehearsal.state import State
from tests import iam
from tests.live_page import cloudshell, laptop

UNUSED = {
    # Only where something is wrong: an instance that cannot be reached, a disk that did not go with its instance.
    "Diagnosis",
    "ec2:DeleteVolume",
    # Here everything is removed with -e data=delete, so there is no snapshot.
    "ec2:CreateSnapshot",
    "ec2:DeleteSnapshot",
    # Of settings that nobody changed in this life: role, address, tags, credits, metadata, monitoring.
    "ec2:AssociateIamInstanceProfile",
    "ec2:DeleteTags",
    "ec2:DescribeIamInstanceProfileAssociations",
    "ec2:DisassociateAddress",
    "ec2:DisassociateIamInstanceProfile",
    "ec2:ModifyInstanceCreditSpecification",
    "ec2:ModifyInstanceMetadataOptions",
    "ec2:MonitorInstances",
    "ec2:UnmonitorInstances",
    # AWS makes a group with the rule for outgoing traffic that it shall have.
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:RevokeSecurityGroupEgress",
}
"""Actions of the policy that this life does not need."""


def test_the_page_leads_back_to_nothing() -> None:
    """Nothing has the project's tag, and of what costs without a tag nothing is left either."""
    laptop("7. Back to nothing")
    ec2 = client("ec2")
    assert tagged() == []
    assert instances() == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_volumes()["Volumes"] == []
    assert [one for one in ec2.describe_key_pairs()["KeyPairs"] if one["KeyName"].startswith(PROJECT)] == []
    assert names() == {}


def test_the_user_goes_as_well() -> None:
    """Somebody could find and use a key that is left behind."""
    cloudshell("7. Back to nothing")
    iam_client = client("iam")
    assert iam_client.list_users()["Users"] == []
    assert iam_client.list_policies(Scope="Local")["Policies"] == []


def test_the_policy_allows_what_was_called_and_no_more() -> None:
    """The account of whoever follows docs/iam.md must neither stop half-way nor be able to do more."""
    calls = State.of("molecule").calls
    assert iam.differences(calls, iam.read_policy(), UNUSED) == []
