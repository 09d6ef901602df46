"""The policy of docs/iam.md is enough, whole and trimmed to the variables, and a missing part is named."""

from __future__ import annotations

from typing import Any

import pytest

from bench.ec2 import PROJECT
from tests.iam import read_policy
from tests.provisioning.conftest import Cloud

pytestmark = [pytest.mark.docker, pytest.mark.long]

ONLY_WITH: dict[str, tuple[tuple[str, ...], Any]] = {
    "ec2_instance_policies": (("Role", "AttachPolicies", "PassRole"), []),
    "ec2_dns_zone": (("Names", "ChangeNames"), ""),
    "ec2_vpc_cidr": (("MakeNetwork", "ChangeNetwork"), ""),
}
"""Statements that the page keeps only with a variable, and the variable's value without them."""


def without(*sids: str) -> dict[str, Any]:
    """Return the policy without some statements."""
    policy = read_policy()
    assert {*sids} <= {one["Sid"] for one in policy["Statement"]}
    return policy | {"Statement": [one for one in policy["Statement"] if one["Sid"] not in sids]}


def live(aws: Cloud, **variables: Any) -> None:
    """Make an instance, check that it is as wanted, and destroy all, first without and then with its data."""

    def run(name: str, **more: Any) -> None:
        outcome = aws.playbook(name, **variables | more)
        assert outcome.ok, outcome.said

    run("provision")
    run("provision")
    run("destroy", confirm=PROJECT, data="keep")
    run("destroy", confirm=PROJECT, data="delete")
    assert aws.costly() == set()


def test_whole_policy_is_enough_for_a_life(empty: Cloud) -> None:
    """The variables ask for a network, a role and a name."""
    empty.policy = read_policy()
    live(empty)


def test_trimmed_policy_is_enough_without_its_variables(empty: Cloud) -> None:
    """Everything that may be left out is left out."""
    empty.policy = without(*(sid for sids, _ in ONLY_WITH.values() for sid in sids))
    live(empty, **{name: value for name, (_, value) in ONLY_WITH.items()})


@pytest.mark.parametrize(
    ("sid", "action"),
    [
        ("Role", "iam:GetRole"),
        ("AttachPolicies", "iam:AttachRolePolicy"),
        ("PassRole", "iam:PassRole"),
        ("Names", "ListHostedZones"),
        ("ChangeNames", "route53:ChangeResourceRecordSets"),
        ("MakeNetwork", "ec2:CreateVpc"),
        ("ChangeNetwork", "ec2:ModifyVpcAttribute"),
    ],
)
def test_missing_statement_is_named(empty: Cloud, sid: str, action: str) -> None:
    """The message names the first action that AWS refuses."""
    empty.policy = without(sid)
    refused = empty.playbook("provision")
    assert not refused.ok
    assert action in refused.said
