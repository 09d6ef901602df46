"""What a person is told when AWS refuses a call."""

from typing import Any

import pytest

from preflight.refusals import ADVICE, Refusal, find_refusal, messages
from preflight.variables import known_variables
from tests.project import ROOT

LAUNCH = "An error occurred ({code}) when calling the RunInstances operation: {words}"


def refusal(code: str, words: str = "Words.") -> Refusal:
    """Read an error as botocore writes it."""
    found = find_refusal(f"Failed to run instances: {LAUNCH.format(code=code, words=words)}")
    assert found
    return found


def test_error_is_read_from_a_message_and_from_a_traceback() -> None:
    told = "An error occurred (Throttling) when calling the GetRole operation (reached max retries: 4): Rate exceeded"
    found = find_refusal(f"Traceback (most recent call last):\n  File x\nbotocore.ClientError: {told}\n\nThe above")
    assert found == Refusal("Throttling", "GetRole", "Rate exceeded")
    assert find_refusal("Timeout when waiting for 10.0.0.1:22") is None


def test_error_of_a_waiter_is_given_its_operation() -> None:
    """Botocore leaves the operation out, which would hide the action that a policy lacks."""
    told = "Timeout waiting for resource records changes to be applied: Waiter resource_record_sets_changed failed: {}"
    told = told.format("An error occurred (AccessDenied): no")
    found = find_refusal(told)
    assert found == Refusal("AccessDenied", "GetChange", "no")
    assert found.action == "route53:GetChange"
    (said,) = messages({"msg": told})
    assert said.endswith("An error occurred (AccessDenied) when calling the GetChange operation: no")


@pytest.mark.parametrize(
    ("code", "words", "variable"),
    [
        ("InvalidParameterCombination", "The instance type is not eligible for Free Tier.", "ec2_instance_type"),
        ("InvalidParameterValue", "The architecture 'arm64' of the specified instance type", "ec2_ami_name"),
        ("VcpuLimitExceeded", "You have requested more vCPU capacity", "ec2_count"),
        ("AddressLimitExceeded", "The maximum number of addresses has been reached.", "ec2_elastic_ip"),
        ("InsufficientInstanceCapacity", "We currently do not have", "ec2_zones"),
        ("Unsupported", "Your requested instance type is not supported in zone", "ec2_zones"),
        ("VpcLimitExceeded", "The maximum number of VPCs has been reached.", "ec2_vpc_cidr"),
        ("InvalidAMIID.NotFound", "The image id does not exist", "ec2_ami_id"),
    ],
)
def test_the_variable_is_named(code: str, words: str, variable: str) -> None:
    assert variable in refusal(code, words).advice()


def test_every_variable_that_is_named_exists() -> None:
    known = known_variables(ROOT / "roles")["ec2"]
    named = {word.strip(".,:") for advice in ADVICE.values() for word in advice.split() if word.startswith("ec2_")}
    assert named
    assert named - set(known) == set()


@pytest.mark.parametrize(
    ("operation", "words", "action"),
    [
        ("RunInstances", "You are not authorized to perform this operation.", "ec2:RunInstances"),
        ("RunInstances", "You are not authorized to perform: iam:PassRole on resource: arn", "iam:PassRole"),
        ("CreateInstanceProfile", "no", "iam:CreateInstanceProfile"),
        ("AssociateIamInstanceProfile", "no", "ec2:AssociateIamInstanceProfile"),
        ("ListHostedZonesByName", "no", "route53:ListHostedZonesByName"),
        ("GetChange", "no", "route53:GetChange"),
    ],
)
def test_missing_action_is_named(operation: str, words: str, action: str) -> None:
    assert f"does not allow {action}: docs/iam.md" in Refusal("AccessDenied", operation, words).advice()


def test_unknown_code_is_not_guessed_at() -> None:
    assert "errors-overview" in refusal("SomethingNew").advice()


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"msg": "no"}, ["no"]),
        ({"msg": "one failed", "results": [{"msg": "first"}, {"failed": True, "msg": "second"}]}, ["second"]),
        ({"attempts": 60}, ["AWS was asked 60 times, and what was waited for did not come"]),
        ({"msg": "no. Encoded authorization failure message: abc-123_4"}, ["no."]),
    ],
)
def test_only_what_failed_speaks(result: dict[str, Any], said: list[str]) -> None:
    assert list(messages(result)) == said
