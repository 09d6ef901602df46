"""docs/aws.md, from an empty account to a serving address, command by command as it is written there."""

from __future__ import annotations

import re

from bench.ec2 import addresses, client, serves, tagged
from tests.live_page import cloudshell, laptop

USER = "flask-fleet"


def test_a_user_is_made_with_the_policy() -> None:
    """An administrator makes it, and is shown the user's access key."""
    assert '"SecretAccessKey"' in cloudshell("With an access key")
    (attached,) = client("iam").list_attached_user_policies(UserName=USER)["AttachedPolicies"]
    assert attached["PolicyName"] == USER


def test_check_mode_plans_on_an_empty_account_and_touches_nothing() -> None:
    """People read the plan before they spend money."""
    assert tagged() == []
    (planned,) = laptop("4. What it would do")
    assert planned.changed["localhost"] > 0
    assert planned.said.count("1 x t2.micro with flask-fleet-baked") == 2
    for zone in ("eu-central-1a", "eu-central-1b"):
        assert f"GiB in {zone}, each with an Elastic IP" in planned.said.replace("\n        ", " ")
    assert tagged() == []


def test_it_serves() -> None:
    """One command of the page brings the instances up and deploys the app."""
    (made,) = laptop("5. Run it")
    found = addresses().values()
    assert len(found) == 2
    assert all(serves(address) for address in found)
    assert all(f"http://{address}/" in made.said for address in found)


def test_again_nothing_changes() -> None:
    """The same command changes nothing, and the page's next one shows that every replica is healthy."""
    again, status = laptop("6. Change it")
    assert set(again.changed.values()) == {0}, again.said
    assert len(re.findall(r"\bhealthy\b", status.said)) >= 2 * len(addresses())
