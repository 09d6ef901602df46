"""The policy in docs/iam.md is accepted by AWS, allows no more than it seems to, and can be compared with calls."""

import json
from fnmatch import fnmatch
from pathlib import Path

import botocore.session
import pytest

from tests import iam

POLICY = iam.read_policy()
NOT_OPERATIONS = {"iam:PassRole"}


def test_policy_fits_into_one() -> None:
    """AWS refuses a longer policy."""
    assert len("".join(json.dumps(POLICY).split())) <= iam.LARGEST


def test_every_action_exists() -> None:
    """AWS accepts a misspelt action, which then allows nothing."""
    session = botocore.session.get_session()
    names = {"servicequotas": "service-quotas", "tag": "resourcegroupstaggingapi"}
    actions = [action.split(":") for action in iam.allowed(POLICY) - NOT_OPERATIONS]
    known = {service: session.get_service_model(names.get(service, service)).operation_names for service, _ in actions}
    assert [action for action in actions if action[1] not in known[action[0]]] == []


def test_every_statement_allows_named_actions() -> None:
    """A wildcard would allow actions that nobody has looked at."""
    assert len({one["Sid"] for one in POLICY["Statement"]}) == len(POLICY["Statement"])
    assert {one["Effect"] for one in POLICY["Statement"]} == {"Allow"}
    assert [action for action in iam.allowed(POLICY) if "*" in action] == []


def test_every_condition_compares_keys_with_values() -> None:
    """AWS refuses the whole policy because of one condition that does not."""
    conditions = [one["Condition"] for one in POLICY["Statement"] if "Condition" in one]
    assert all(isinstance(keys, dict) and keys for condition in conditions for keys in condition.values())


def test_what_is_made_is_tagged_while_it_is_made() -> None:
    """Otherwise it could be made but then neither changed nor removed."""
    (tagging,) = [one for one in POLICY["Statement"] if one["Sid"] == "TagWhatIsMade"]
    made = {
        action.removeprefix("ec2:")
        for one in POLICY["Statement"]
        if one["Sid"] in {"Make", "MakeNetwork"}
        for action in one["Action"]
    }
    assert set(tagging["Condition"]["StringEquals"]["ec2:CreateAction"]) == made


CREATED = {
    "ec2:AllocateAddress": "elastic-ip",
    "ec2:CreateInternetGateway": "internet-gateway",
    "ec2:CreateRouteTable": "route-table",
    "ec2:CreateSecurityGroup": "security-group",
    "ec2:CreateSnapshot": "snapshot",
    "ec2:CreateSubnet": "subnet",
    "ec2:CreateVpc": "vpc",
    "ec2:RunInstances": "instance",
}
"""What comes to be: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html. A key pair
that is imported is both what is made and what an instance is made with."""


@pytest.mark.parametrize(("action", "kind"), CREATED.items(), ids=CREATED)
def test_nothing_can_be_made_without_the_tag(action: str, kind: str) -> None:
    """AWS allows what any statement allows, however strict the others are."""
    for one in POLICY["Statement"]:
        resources = one["Resource"] if isinstance(one["Resource"], list) else [one["Resource"]]
        # A snapshot belongs to no account.
        made = f"arn:aws:ec2:eu-central-1:{'' if kind == 'snapshot' else '1'}:{kind}/x"
        covered = any(fnmatch(made, pattern) for pattern in resources)
        if action in one["Action"] and covered:
            conditions = one["Condition"]["StringEquals"]
            assert conditions.keys() & {"aws:RequestTag/Project", "aws:ResourceTag/Project"}, one["Sid"]


def test_what_changes_something_is_limited() -> None:
    """The limit is the project's tag or role, so that the user cannot stop or take over machines of others."""
    free = {
        action
        for one in POLICY["Statement"]
        if "Condition" not in one and one["Resource"] == "*"
        for action in one["Action"]
    }
    assert [action for action in free if not action.split(":")[1].startswith(("Describe", "Get", "List"))] == []
    (pass_role,) = [one for one in POLICY["Statement"] if "iam:PassRole" in one["Action"]]
    assert pass_role["Resource"].endswith(":role/flask-fleet-*")
    assert pass_role["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    ends = [one for one in POLICY["Statement"] if "ec2:TerminateInstances" in one["Action"]]
    assert [one["Condition"] for one in ends] == [{"StringEquals": {"aws:ResourceTag/Project": "flask-fleet"}}]


def test_questions_that_know_no_resource_are_allowed_for_all() -> None:
    """With the ARN of a quota the statement would match no call, and preflight would refuse everybody.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_servicequotas.html and list_freetier.html
    name no resource type for them.
    """
    for action in ("servicequotas:GetServiceQuota", "freetier:GetAccountPlanState"):
        (statement,) = [one for one in POLICY["Statement"] if action in one["Action"]]
        assert statement["Resource"] == "*"
        assert "Condition" not in statement


def test_differences_are_found_both_ways(tmp_path: Path) -> None:
    """A missing permission stops the person half-way, and a needless one helps an intruder."""
    policy = {
        "Statement": [
            {"Sid": "Look", "Action": ["ec2:DescribeInstances"]},
            {"Sid": "Change", "Action": ["ec2:StopInstances"]},
            {"Sid": "Names", "Action": ["route53:ChangeResourceRecordSets"]},
        ]
    }
    calls = tmp_path / "calls.jsonl"
    lines = [["ec2:DescribeInstances"], ["ec2:RunInstances", "iam:PassRole"], ["sts:GetCallerIdentity"]]
    told = [{"needs": needs, "user": "rehearsal"} for needs in lines] + [{"needs": ["s3:GetObject"], "user": "root"}]
    calls.write_text("".join(json.dumps(one) + "\n" for one in told))
    assert iam.differences(calls, policy, unused=["Names"]) == [
        "ec2:RunInstances was called and is not allowed",
        "iam:PassRole was called and is not allowed",
        "ec2:StopInstances is allowed and was not called",
    ]
    assert iam.differences(calls, policy, unused=["Names", "ec2:StopInstances"])[2:] == []
