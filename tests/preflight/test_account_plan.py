"""The Free plan launches only a few types, and AWS says so only after the first things are made."""

import datetime
from typing import Any

import pytest
from botocore.stub import Stubber

from preflight.account_plan import PLANS, plan_problems
from preflight.cloud import Cloud
from tests.preflight.cloud import PAID, cloud, plan

pytestmark = pytest.mark.usefixtures("aws")

FREE: dict[str, Any] = {
    "accountPlanType": "FREE",
    "accountPlanStatus": "ACTIVE",
    "accountPlanRemainingCredits": {"amount": 183.2, "unit": "USD"},
    "accountPlanExpirationDate": datetime.datetime(2027, 5, 30, tzinfo=datetime.UTC),
}

ELIGIBLE = (
    "c7i-flex.large, m7i-flex.large, t3.micro (8.76 USD a month), t3.small (17.52 USD a month), t8i.micro, t8i.small"
)
"""The eligible types of moto in Frankfurt, which lack the last two of AWS's."""

ENDS = (
    "The account is on the Free plan, which has 183.20 USD left. When its credits are used up, or at the latest on "
    "2027-05-30, AWS closes the account and all that runs in it stops, unless the account is on the paid plan by then: "
    f"{PLANS}"
)


def said(answer: dict[str, Any] | str, **changes: Any) -> tuple[list[str], list[str]]:
    """Return problems and notes for what AWS says of the plan."""
    checked = cloud(**changes)
    with plan(checked, answer):
        return list(plan_problems(checked)), checked.notes


def test_free_plan_refuses_the_default_type_and_names_those_that_it_has() -> None:
    problem = (
        f"ec2_instance_type is 't2.micro', which the account's Free plan does not launch; allowed are {ELIGIBLE}, or "
        f"the paid plan: {PLANS}"
    )
    assert said(FREE) == ([problem], [ENDS])


def test_free_plan_says_when_it_ends() -> None:
    assert said(FREE, ec2_instance_type="t3.micro") == ([], [ENDS])
    short = {name: FREE[name] for name in ("accountPlanType", "accountPlanStatus")}
    _, (note,) = said(short, ec2_instance_type="t3.micro")
    assert note.startswith("The account is on the Free plan. When its credits are used up, AWS closes the account")


def test_free_plan_that_ended_is_refused() -> None:
    ended = FREE | {"accountPlanStatus": "EXPIRED"}
    expected = f"The account's Free plan has ended, so AWS launches nothing; allowed is the paid plan: {PLANS}"
    assert said(ended, ec2_instance_type="t3.micro") == ([expected], [])


@pytest.mark.parametrize("name", ["t2.micro", "t3.micro"])
def test_paid_plan_may_have_any_type(name: str) -> None:
    """AWS names eligible types for such accounts too, but the list does not bind them."""
    assert said(PAID, ec2_instance_type=name) == ([], [])


@pytest.mark.parametrize("code", ["AccessDeniedException", "ResourceNotFoundException"])
def test_unknown_plan_blocks_nobody(code: str) -> None:
    """An older account has no plan, and a policy may lack the permission; whoever pays must be able to go on."""
    note = (
        f"AWS does not say which plan the account is on (freetier:GetAccountPlanState: {code}). The paid plan launches "
        f"a t2.micro, the Free plan does not: it has {ELIGIBLE}"
    )
    assert said(code) == ([], [note])
    assert said(code, ec2_instance_type="t3.micro") == ([], [])


def image_problems(checked: Cloud, eligible: bool) -> list[str]:
    checked.type(checked.variables["ec2_instance_type"])
    image = {"ImageId": "ami-1", "Name": "lamp", "CreationDate": "2026", "FreeTierEligible": eligible}
    with plan(checked, FREE), Stubber(checked.ec2) as stubber:
        stubber.add_response("describe_instances", {"Reservations": []})
        stubber.add_response("describe_images", {"Images": [image]})
        return list(plan_problems(checked))


def test_free_plan_has_images_too() -> None:
    """AWS refuses those of the Marketplace: https://github.com/bitnami/vms/issues/1838."""
    assert image_problems(cloud(ec2_instance_type="t3.micro"), eligible=True) == []
    (problem,) = image_problems(cloud(ec2_instance_type="t3.micro"), eligible=False)
    assert problem.startswith("The image lamp (ami-1) is none that the Free plan launches; allowed is another one with")
    assert problem.endswith(f"ec2_ami_id, or the paid plan: {PLANS}")
