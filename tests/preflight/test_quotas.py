"""An account's quotas in a region are checked before the first thing is made."""

from typing import Any

import boto3
import pytest

from preflight import quotas
from preflight.quotas import ADDRESSES, GROUPS, VCPUS, VPCS
from tests.preflight import cloud as account
from tests.preflight.cloud import cloud, launch, tags
from tests.preflight.input import REGION

pytestmark = pytest.mark.usefixtures("aws")


def vcpu_problems(quota: float, **changes: Any) -> list[str]:
    """Check an account that may run so many vCPUs."""
    checked = cloud(**changes)
    with account.quotas(checked, (VCPUS, quota)):
        return list(quotas.vcpu_problems(checked))


def test_too_many_vcpus_are_refused() -> None:
    launch("t2.medium", 2)
    launch("t2.micro", 4, Project="flask-fleet", Role="app")
    assert vcpu_problems(8, ec2_count=2, ec2_instance_type="t2.medium") == []
    (problem,) = vcpu_problems(7, ec2_count=2, ec2_instance_type="t2.medium")
    assert problem == (
        "ec2_count is 2 and ec2_instance_type is 't2.medium': that is 4 vCPUs beside 4 others, but the account may "
        "have 7 in eu-central-1 (quota L-1216C47A); allowed is a count up to 1, or a higher quota: AWS raises it on "
        "request"
    )


def test_quota_of_one_vcpu_has_no_room_for_two() -> None:
    (problem,) = vcpu_problems(1, ec2_instance_type="t3.micro")
    assert "allowed is a smaller type, or a higher quota" in problem


def test_stopped_instances_of_others_do_not_count() -> None:
    (other,) = launch("t2.medium")
    boto3.client("ec2", region_name=REGION).stop_instances(InstanceIds=[other])
    assert vcpu_problems(1) == []


def test_other_families_have_other_quotas() -> None:
    launch("g4dn.xlarge")
    assert vcpu_problems(1) == []
    assert list(quotas.vcpu_problems(cloud(ec2_instance_type="g4dn.xlarge"))) == []


def test_standard_families() -> None:
    """Families with names of two letters count against other quotas, except for storage families."""
    others = ["inf1.xlarge", "trn1.2xlarge", "hpc6a.48xlarge", "mac1.metal", "g4dn.xlarge", "p4d"]
    standard = ["t2.micro", "i4i.large", "im4gn.large"]
    assert [name for name in others + standard if quotas.STANDARD_FAMILIES.match(name)] == standard


def address_problems(*quota: float, **changes: Any) -> list[str]:
    """Check an account that may have so many Elastic IPs."""
    checked = cloud(**changes)
    with account.quotas(checked, *((ADDRESSES, one) for one in quota)):
        return list(quotas.address_problems(checked))


def allocate(count: int, **values: str) -> None:
    client = boto3.client("ec2", region_name=REGION)
    for _ in range(count):
        client.allocate_address(Domain="vpc", TagSpecifications=[tags("elastic-ip", **values)] if values else [])


def test_elastic_ips_beyond_the_quota_are_refused() -> None:
    assert address_problems(5, ec2_count=5) == []
    (problem,) = address_problems(5, ec2_count=6)
    assert problem.startswith("ec2_count is 6 and ec2_elastic_ip is true: that is 6 Elastic IPs beside 0 others, but")
    assert "(quota L-0263D0A3); allowed is a count up to 5, ec2_elastic_ip: false, or a higher quota" in problem


def test_addresses_of_others_leave_less_room_and_own_ones_are_used_again() -> None:
    allocate(4)
    (problem,) = address_problems(5, ec2_count=2)
    assert "that is 2 Elastic IPs beside 4 others" in problem
    assert "allowed is a count up to 1, ec2_elastic_ip: false, or" in problem
    allocate(1, Project="flask-fleet")
    assert address_problems(5, ec2_count=2) == [problem]
    assert address_problems(ec2_count=1) == []


def test_full_account_can_do_without_elastic_ips() -> None:
    allocate(5)
    (problem,) = address_problems(5)
    assert "allowed is ec2_elastic_ip: false, or a higher quota" in problem
    assert address_problems(ec2_elastic_ip="no") == []


def network_problems(*values: tuple[quotas.Quota, float], **changes: Any) -> list[str]:
    """Check an account that may have so many VPCs and security groups."""
    checked = cloud(**changes)
    with account.quotas(checked, *values):
        return [*quotas.vpc_problems(checked), *quotas.group_problems(checked)]


def test_network_of_its_own_needs_room_for_a_vpc() -> None:
    own = {"ec2_vpc_cidr": "10.20.0.0/16"}
    assert network_problems((VPCS, 2), (GROUPS, 100), **own) == []
    (problem,) = network_problems((VPCS, 1), (GROUPS, 100), **own)
    assert problem.startswith("ec2_vpc_cidr is '10.20.0.0/16': that is 1 VPC beside 1 others, but the account may have")
    assert "(quota L-F678F1CE); allowed is an empty one, for the default VPC, or a higher quota" in problem


def test_network_that_exists_is_not_asked_for_again() -> None:
    client = boto3.client("ec2", region_name=REGION)
    block, ours = "10.20.0.0/16", {"Project": "flask-fleet"}
    vpc = client.create_vpc(CidrBlock=block, TagSpecifications=[tags("vpc", **ours)])["Vpc"]["VpcId"]
    assert network_problems((GROUPS, 100), ec2_vpc_cidr=block) == []
    client.create_security_group(
        GroupName="flask-fleet", Description="-", VpcId=vpc, TagSpecifications=[tags("security-group", **ours)]
    )
    assert network_problems(ec2_vpc_cidr=block) == []


def test_security_group_needs_room() -> None:
    assert network_problems((GROUPS, 2)) == []
    (problem,) = network_problems((GROUPS, 1))
    assert problem.startswith("ec2_project is 'flask-fleet': that is 1 security group beside 1 others, but the account")
    assert "may have 1 in eu-central-1 (quota L-E79EC296)" in problem
    (problem,) = network_problems((VPCS, 5), (GROUPS, 2), ec2_vpc_cidr="10.20.0.0/16")
    assert "that is 2 security groups beside 1 others" in problem


def test_quota_without_a_value_refuses_nothing() -> None:
    """The rehearsal keeps no quota of EC2, and for some quotas AWS tells no value."""
    assert list(quotas.vcpu_problems(cloud(ec2_count=20))) == []
