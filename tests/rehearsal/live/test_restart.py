"""The API process is killed, and its knowledge survives."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal.live.conftest import NAME, Lab, rule, until

pytestmark = pytest.mark.docker


def state(lab: Lab) -> Path:
    """Return the state directory."""
    return Path(lab.environment["XDG_STATE_HOME"]) / "flask-fleet" / NAME


def kill(lab: Lab) -> None:
    """Kill the API process without warning."""
    os.kill(json.loads((state(lab) / "api.json").read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
    assert until(lambda: "is not running" in lab.command("status", check=False))


def everything(lab: Lab, instance: str) -> list[Any]:
    """Describe all that must stay."""
    ec2 = lab.ec2
    told: list[Any] = [lab.describe(instance)]
    told.append(ec2.describe_key_pairs()["KeyPairs"])
    told.append(sorted(ec2.describe_security_groups()["SecurityGroups"], key=lambda group: str(group["GroupId"])))
    told.append(ec2.describe_addresses()["Addresses"])
    told.append(ec2.describe_tags()["Tags"])
    told.append(lab.client("iam").list_roles()["Roles"])
    return told


def test_everything_is_there_after_kill_9(lab: Lab) -> None:
    """Instances, keys, groups, tags and addresses are unchanged and still under control."""
    group = lab.group("kept", rule(22, "10.0.0.0/8"))
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "kept"}]}]
    instance = lab.run(SecurityGroupIds=[group], TagSpecifications=tags, ClientToken="once")
    address = lab.ec2.allocate_address(Domain="vpc")
    lab.ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=instance)
    lab.client("iam").create_role(RoleName="kept", AssumeRolePolicyDocument="{}")
    before = everything(lab, instance)
    lab.inside(instance, "echo data > /var/lib/docker/data; echo data > /root/data")
    kill(lab)
    assert lab.open(address["PublicIp"], 22)  # instances do not notice
    assert lab.command("up").startswith(f"resumed rehearsal '{NAME}'")
    assert everything(lab, instance) == before
    assert lab.run(SecurityGroupIds=[group], TagSpecifications=tags, ClientToken="once") == instance

    lab.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule(22, "10.0.0.0/8")])
    assert not lab.open(address["PublicIp"], 22)
    lab.ec2.stop_instances(InstanceIds=[instance])
    assert lab.describe(instance)["State"]["Name"] == "stopped"
    lab.ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "t2.small"})
    lab.ec2.start_instances(InstanceIds=[instance])
    after = lab.describe(instance)
    assert (after["State"]["Name"], after["PublicIpAddress"]) == ("running", address["PublicIp"])
    assert lab.inside(instance, "cat /var/lib/docker/data /root/data; nproc") == "data\ndata\n1"
    lab.ec2.release_address(AllocationId=address["AllocationId"])
    lab.client("iam").delete_role(RoleName="kept")


def test_what_was_begun_is_finished(lab: Lab) -> None:
    """It is killed while one instance boots, one stops, one terminates, one is replaced and one reboots."""
    booting_soon = [lab.run() for _ in range(3)]
    stopping, going, rebooting = booting_soon
    booting = lab.run(wait=False)
    lab.ec2.stop_instances(InstanceIds=[stopping])
    lab.ec2.terminate_instances(InstanceIds=[going])
    boot_id = lab.inside(rebooting, "cat /proc/sys/kernel/random/boot_id")
    lab.ec2.reboot_instances(InstanceIds=[rebooting])
    kill(lab)
    lab.command("up")
    states = {one: lab.describe(one)["State"]["Name"] for one in (booting, stopping, going, rebooting)}
    assert states == {booting: "running", stopping: "stopped", going: "terminated", rebooting: "running"}
    assert lab.inside(rebooting, "cat /proc/sys/kernel/random/boot_id") != boot_id


def test_container_that_vanished_meanwhile_is_terminated(lab: Lab) -> None:
    """The API must not call it running."""
    instance = lab.run()
    kill(lab)
    lab.host("docker", "rm", "--force", "--volumes", f"{NAME}-{instance}")
    lab.command("up")
    told = lab.describe(instance)
    assert told["State"]["Name"] == "terminated"
    assert "its container is gone" in told["StateReason"]["Message"]


def test_unreadable_state_is_said_and_cleaned_up(lab: Lab) -> None:
    """This is the last test of the file, because it leaves a rehearsal without its state."""
    lab.run()
    kill(lab)
    (state(lab) / "memory").write_bytes(b"nonsense")
    said = lab.command("up", "--port", str(lab.port), "--network", lab.network)
    lab.launched.clear()
    lab.import_key()
    assert said.startswith(f"started rehearsal '{NAME}'")
    assert "the state of the last run cannot be read (UnpicklingError" in said
    assert "containers, volumes and networks of it" in said
    assert lab.host("docker", "ps", "--all", "--quiet", "--filter", f"label=flask-fleet.rehearsal={NAME}") == ""
