"""After destroy.yml nothing is left that could cost."""

from __future__ import annotations

from tests.live_fleet import PROJECT, client, instances, tagged


def test_nothing_is_left() -> None:
    """By the project's tag, and by asking for what costs without one."""
    ec2 = client("ec2")
    assert tagged() == []
    assert instances() == []
    assert ec2.describe_addresses()["Addresses"] == []
    assert ec2.describe_volumes()["Volumes"] == []
    assert [one for one in ec2.describe_key_pairs()["KeyPairs"] if one["KeyName"].startswith(PROJECT)] == []
