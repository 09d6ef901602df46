"""Instances are spread over zones, and the least missed ones are removed first."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from roles.ec2.filter_plugins.ec2_plan import ec2_credit_mode, ec2_fleet, ec2_subnets, ec2_unsettled

ZONES = ["eu-central-1a", "eu-central-1b"]


def instance(name: str, zone: str, born: int = 0) -> dict[str, Any]:
    """Describe an instance; its launch time is that of the last start, which does not tell its age."""
    attachment = {"attach_time": f"2026-11-{born + 1:02}T00:00:00+00:00"}
    return {
        "instance_id": name,
        "image_id": f"ami-{name}",
        "launch_time": f"2026-12-{30 - born:02}T00:00:00+00:00",
        "network_interfaces": [{"attachment": attachment}],
        "placement": {"availability_zone": f"eu-central-1{zone}"},
    }


def test_zones_have_the_subnets_of_their_letters() -> None:
    """A zone that is added or removed must not move the subnet of another one."""
    assert ec2_subnets(["eu-central-1b", "eu-central-1a", "eu-central-1b"], "10.20.0.0/16") == [
        {"zone": "eu-central-1a", "cidr": "10.20.0.0/20"},
        {"zone": "eu-central-1b", "cidr": "10.20.16.0/20"},
    ]
    assert ec2_subnets(["us-east-1f"], "192.168.4.0/24") == [{"zone": "us-east-1f", "cidr": "192.168.4.80/28"}]
    assert ec2_subnets(ZONES, "") == []


@pytest.mark.parametrize("cidr", ["10.0.0.0/8", "10.20.0.0/25", "8.8.0.0/16", "10.20.0.1/16", "10.20.0.0/33", "home"])
def test_a_network_that_cannot_be_is_refused_with_what_is_allowed(cidr: str) -> None:
    """AWS would say so after the first things were made."""
    with pytest.raises(AnsibleFilterError, match=r"ec2_vpc_cidr is .* allowed is a private network from /16 to /24"):
        ec2_subnets(ZONES, cidr)


@pytest.mark.parametrize(
    ("there", "count", "launched"),
    [
        ([], 1, {"a": 1}),
        ([], 5, {"a": 3, "b": 2}),
        ([instance("one", "a")], 2, {"b": 1}),
        ([instance("one", "c")], 3, {"a": 1, "b": 1}),
        ([instance("one", "b"), instance("two", "b")], 5, {"a": 3}),
        ([instance("one", "a"), instance("two", "b")], 2, {}),
    ],
)
def test_new_instances_go_where_the_fewest_are(there: list[Any], count: int, launched: dict[str, int]) -> None:
    """A zone that fails must not take more than its share."""
    plan = ec2_fleet(there, ZONES, count)
    assert {one["zone"][-1]: one["count"] for one in plan["launch"]} == launched
    assert plan["remove"] == []


@pytest.mark.parametrize(
    ("there", "count", "removed"),
    [
        ([instance("old", "a", 1), instance("new", "b", 2)], 1, ["new"]),
        ([instance("new", "b", 2), instance("old", "a", 1)], 1, ["new"]),
        ([instance("old", "a", 1), instance("new", "a", 2), instance("newest", "b", 3)], 2, ["new"]),
        ([instance("unwanted", "c", 1), instance("new", "a", 2)], 1, ["unwanted"]),
        ([instance("one", "a", 1), instance("two", "a", 2), instance("three", "b", 3)], 1, ["two", "three"]),
        ([instance("one", "a", 1)], 0, ["one"]),
    ],
)
def test_the_newest_of_the_fullest_zone_goes_first(there: list[Any], count: int, removed: list[str]) -> None:
    """By itself amazon.aws would terminate the oldest, which people know and after which the others were made."""
    plan = ec2_fleet(there, ZONES, count)
    assert plan["remove"] == removed
    assert plan["launch"] == []


def test_the_oldest_instance_decides_about_the_image() -> None:
    """All instances must be alike, although a newer image may exist by now."""
    assert ec2_fleet([instance("new", "a", 2), instance("old", "b", 1)], ZONES, 3)["image"] == "ami-old"
    assert ec2_fleet([], ZONES, 3)["image"] == ""


@pytest.mark.parametrize(
    ("instance_type", "chosen", "mode"),
    [
        ("t2.micro", "", "standard"),
        ("t2.micro", "unlimited", "unlimited"),
        ("t3.micro", "", "unlimited"),
        ("t3a.medium", "", "unlimited"),
        ("t3.micro", "standard", "standard"),
        ("m7i.large", "unlimited", "standard"),
    ],
)
def test_a_family_that_begins_without_credits_is_not_held_back(instance_type: str, chosen: str, mode: str) -> None:
    """A t3 in standard mode would build the first images with 20 % of a CPU."""
    assert ec2_credit_mode(instance_type, chosen) == mode


SUBNETS = [{"id": "subnet-1", "map_public_ip_on_launch": True}, {"id": "subnet-2", "map_public_ip_on_launch": False}]


@pytest.mark.parametrize(
    ("shown", "own", "released", "unsettled"),
    [
        ({"public_ip_address": "192.0.2.1"}, {"i-1": "192.0.2.1"}, [], []),
        ({"public_ip_address": "198.51.100.9"}, {"i-1": "192.0.2.1"}, [], ["i-1"]),
        ({}, {"i-1": "192.0.2.1"}, [], ["i-1"]),
        ({"public_ip_address": "198.51.100.9"}, {}, [], []),
        ({"public_ip_address": "192.0.2.1"}, {}, [{"public_ip": "192.0.2.1"}], ["i-1"]),
        ({}, {}, [{"public_ip": "192.0.2.1"}], ["i-1"]),
        ({"subnet_id": "subnet-2"}, {}, [{"public_ip": "192.0.2.1"}], []),
    ],
    ids=["elastic", "stale before elastic", "none before elastic", "any", "released", "none yet", "private for good"],
)
def test_instance_is_unsettled_until_its_address_shows(
    shown: dict[str, str], own: dict[str, str], released: list[dict[str, str]], unsettled: list[str]
) -> None:
    """The inventory reads the address next, and would reach nobody or another machine."""
    instance = {"instance_id": "i-1", "subnet_id": "subnet-1"} | shown
    assert ec2_unsettled([instance], ["i-1"], own, released, SUBNETS) == unsettled


def test_instance_that_aws_does_not_show_yet_is_unsettled() -> None:
    """An empty answer does not mean that there is no instance."""
    assert ec2_unsettled([], ["i-1"], {}, [], SUBNETS) == ["i-1"]
