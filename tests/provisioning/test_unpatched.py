"""A life of one instance against an unpatched moto, which shows that our patches hide no mistake of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.ec2 import PROJECT, REGION
from tests.provisioning.conftest import Cloud
from tests.provisioning.test_refusals import changes, check, instances, told

pytestmark = pytest.mark.docker


NO_ROLE: dict[str, Any] = {"ec2_instance_policies": []}


def test_check_mode_needs_no_folder_for_the_key(empty: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a laptop that never used SSH it says what it would make, and makes nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    checked = empty.playbook("provision", "--check", "--diff", **NO_ROLE)
    assert checked.ok, checked.said
    assert "1 x t2.micro with debian-13-amd64" in checked.said
    assert not (tmp_path / ".ssh").exists()
    assert empty.costly() == set()


def test_instances_go_where_their_type_is_offered(empty: Cloud) -> None:
    """The region's first zone, which used to be chosen, does not offer an f2.6xlarge here, nor does it on AWS."""
    planned = empty.playbook(
        "provision", "--check", ec2_instance_type="f2.6xlarge", ec2_zones=[], ec2_vpc_cidr="", **NO_ROLE
    )
    assert planned.ok, planned.said
    assert "10 GiB in eu-central-1b, each with" in " ".join(planned.said.split())
    assert empty.costly() == set()


def test_inventory_says_what_aws_refuses_it(empty: Cloud) -> None:
    """It is the only message: three parsers would complain that they cannot read the inventory's file."""
    empty.refuse("ec2:DescribeInstances")
    refused = empty.playbook("provision")
    assert " ".join(refused.said.split()) == (
        f"[ERROR]: The instances in {REGION} cannot be listed: An error occurred (Blocked) when calling the "
        "DescribeInstances operation: Words of AWS. To change: nothing here: AWS has blocked the account; only its "
        "support can tell why"
    )


def test_life_without_our_patches(empty: Cloud) -> None:
    """It is made at the second attempt, is as wanted, is not resized as AWS refuses, and goes at the second attempt."""
    empty.refuse("ec2:AssociateAddress")
    check(empty, empty.playbook("provision", **NO_ROLE))
    assert empty.playbook("provision", **NO_ROLE).ok
    again = empty.playbook("provision", **NO_ROLE)
    # moto gives the tags of an address to a "vpc-elastic-ip", so that they are set at each run: rehearsal/patches.py
    assert (again.ok, again.changed) == (True, {"localhost": 1}), again.said
    assert [call for call in empty.calls() if changes(call)] == ["ec2:CreateTags"]
    empty.refuse("ec2:ModifyInstanceAttribute")
    resized = empty.playbook("provision", ec2_instance_type="t2.medium", **NO_ROLE)
    assert "and runs again as t2.micro" in told(resized)
    assert check(empty, resized) == "ModifyInstanceAttribute"
    assert instances(empty) == [("t2.micro", "running")]
    empty.refuse("ec2:ReleaseAddress")
    check(empty, empty.playbook("destroy", confirm=PROJECT, data="delete", **NO_ROLE))
    # As with a policy without the statement Role: docs/iam.md
    empty.refuse("iam:*", "AccessDenied", count=100)
    destroyed = empty.playbook("destroy", confirm=PROJECT, data="delete", **NO_ROLE)
    assert destroyed.ok, destroyed.said
    assert "Not asked for, because these credentials may not: instance profile and role. They cost nothing" in (
        " ".join(destroyed.said.split())
    )
    assert empty.costly() == set()
