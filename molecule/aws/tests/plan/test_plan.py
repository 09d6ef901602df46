"""Before anything exists, check mode tells what would be made."""

from __future__ import annotations

from tests.live_fleet import tagged
from tests.live_playbook import playbook


def test_check_mode_plans_on_an_empty_account_and_touches_nothing() -> None:
    """This is read before money is spent."""
    assert tagged() == []
    planned = playbook("site.yml", "--check", "--diff")
    assert planned.ok, planned.said
    assert planned.changed["localhost"] > 0
    assert planned.said.count("1 x t2.micro with flask-fleet-baked") == 2
    for zone in ("eu-central-1a", "eu-central-1b"):
        assert f"GiB in {zone}, each with an Elastic IP" in planned.said.replace("\n        ", " ")
    assert tagged() == []
