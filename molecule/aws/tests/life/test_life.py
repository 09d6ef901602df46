"""Two instances are resized and keep what they have, lose things by hand and get them back."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bench.ec2 import PROJECT, addresses, client, inside, instances, names, serves
from bench.playbook import interrupted, playbook, scenario_variables

MEDIUM = ("--extra-vars", "ec2_instance_type=t2.medium")
SSH_PORT = 22
NEW_ADDRESS = "203.0.113.8"
"""The controller's address from the middle of these tests on."""
FILE = "/var/lib/kept"
SIZES = {"t2.micro": (1, 1024), "t2.medium": (2, 4096)}
"""vCPUs and MiB of the types, as EC2's DescribeInstanceTypes has them."""

DATA = "docker run --rm --volume kept:/kept --entrypoint sh $(docker images --quiet flask-fleet/base | head -1) -c"


def size(instance_id: str) -> tuple[int, ...]:
    """Ask an instance for its CPUs, its memory and its limit, in MiB."""
    total = "free --mebi | awk '/^Mem:/ {print $2}'"
    limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -1"
    said = inside(instance_id).check_output(f"nproc; {total}; echo $(($({limit}) / 1048576))")
    return tuple(int(line) for line in said.splitlines())


def group() -> dict[str, Any]:
    """Describe the project's security group."""
    filters = [{"Name": "tag:Project", "Values": [PROJECT]}]
    (found,) = client("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    return dict(found)


def test_they_are_made_as_the_variables_say() -> None:
    """Each zone gets one, with an address that stays and metadata that a request without a token cannot read."""
    found = instances()
    assert [one["Placement"]["AvailabilityZone"] for one in found] == ["eu-central-1a", "eu-central-1b"]
    assert {one["InstanceType"] for one in found} == {"t2.micro"}
    assert {one["MetadataOptions"]["HttpTokens"] for one in found} == {"required"}
    assert {one["MetadataOptions"]["HttpPutResponseHopLimit"] for one in found} == {1}
    ec2 = client("ec2")
    elastic = {one["PublicIp"]: one["InstanceId"] for one in ec2.describe_addresses()["Addresses"]}
    assert elastic == {address: one for one, address in addresses().items()}
    assert all(volume["Encrypted"] for volume in ec2.describe_volumes()["Volumes"])
    assert all(serves(address) for address in elastic)
    assert names() == {scenario_variables()["ec2_dns_zone"]: sorted(elastic)}
    (network,) = {one["VpcId"] for one in found}
    assert ec2.describe_vpcs(VpcIds=[network])["Vpcs"][0]["CidrBlock"] == scenario_variables()["ec2_vpc_cidr"]


def test_ec2_refuses_to_terminate_them() -> None:
    """A slip in the console must not cost the data."""
    ec2 = client("ec2")
    with pytest.raises(ec2.exceptions.ClientError, match="OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=list(addresses()))
    assert len(instances()) == 2


def test_resize_changes_cpus_and_memory_and_keeps_address_and_data() -> None:
    """More memory for an evening must not mean a new machine."""
    before = addresses()
    for one in before:
        assert size(one) == (*SIZES["t2.micro"], SIZES["t2.micro"][1])
        inside(one).check_output(f"echo file of {one} > {FILE}; {DATA} 'echo volume of {one} > /kept/data'")
    resized = playbook("playbooks/resize.yml", *MEDIUM)
    assert resized.ok, resized.said
    assert addresses() == before
    for one in before:
        assert size(one) == (*SIZES["t2.medium"], SIZES["t2.medium"][1])
        assert inside(one).check_output(f"cat {FILE}; {DATA} 'cat /kept/data'") == f"file of {one}\nvolume of {one}"
    assert all(serves(address) for address in before.values())


def test_an_address_that_changes_during_a_run_is_named() -> None:
    """A home connection gets a new address at night: the run hangs, and afterwards SSH lets nobody in."""
    change = f"{sys.executable} -m rehearsal --name molecule up --controller-address {NEW_ADDRESS}"
    cut = playbook(
        "playbooks/status.yml", prefix=interrupted("host : status | Ask whether an update waits for a reboot", change)
    )
    assert not cut.ok
    assert cut.said.count(f"but AWS sees this machine at {NEW_ADDRESS}. Run playbooks/provision.yml with me or ") == 2


def test_site_puts_back_what_was_deleted_by_hand() -> None:
    """There is no state file: the run compares what is there with the variables, whoever changed it."""
    ec2, before, rules = client("ec2"), addresses(), group()
    http_rule = next(rule for rule in rules["IpPermissions"] if rule["FromPort"] == 80)
    ec2.revoke_security_group_ingress(GroupId=rules["GroupId"], IpPermissions=[http_rule])
    foreign = {"IpProtocol": "tcp", "FromPort": 23, "ToPort": 23, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=rules["GroupId"], IpPermissions=[foreign])
    (ssh_rule,) = next(rule for rule in rules["IpPermissions"] if rule["FromPort"] == SSH_PORT)["IpRanges"]
    ssh_rule["CidrIp"] = f"{NEW_ADDRESS}/32"
    kept, lost = sorted(before)
    assert not serves(before[kept])
    ec2.modify_instance_attribute(InstanceId=lost, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[lost])
    repaired = playbook("site.yml", *MEDIUM)
    assert repaired.ok, repaired.said
    after = addresses()
    assert after[kept] == before[kept]
    assert sorted(after.values()) == sorted(before.values())
    assert lost not in after
    assert names() == {scenario_variables()["ec2_dns_zone"]: sorted(after.values())}
    assert sorted(group()["IpPermissions"], key=str) == sorted(rules["IpPermissions"], key=str)
    assert all(serves(address) for address in after.values())


def test_check_mode_says_that_nothing_is_left_to_do() -> None:
    """The run before was complete, so check mode must find no change."""
    checked = playbook("site.yml", "--check", "--diff", *MEDIUM)
    assert checked.ok, checked.said
    assert set(checked.changed.values()) == {0}, checked.said
