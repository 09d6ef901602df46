"""Lives of instances when AWS acts as on the first day: a new account, a new address, late answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from bench.ec2 import PROJECT, addresses, client, instances
from bench.playbook import Outcome
from rehearsal import CREDENTIAL
from rehearsal.state import State
from tests.project import ROOT
from tests.provisioning.conftest import costly
from tests.provisioning.test_refusals import changes, told

pytestmark = pytest.mark.docker

NAME, PORT, NETWORK = "lives", 7181, "10.94.0.0/16"
HOME_ADDRESS, NEXT_ADDRESS = "203.0.113.7", "203.0.113.8"
"""Addresses of the router in front of this machine."""
LATE_S = 6
MICRO = {"ec2_instance_type": "t3.micro"}
SMALL = {"ec2_instance_type": "t3.small"}


class Day:
    """A rehearsal, and the actions of a person in it."""

    foreign: frozenset[str] = frozenset()
    """What costs and is not ours: the snapshots of moto's machine images."""

    def rehearsal(self, *arguments: str) -> str:
        """Run ``python -m rehearsal`` and return its output."""
        command = [sys.executable, "-m", "rehearsal", "--name", NAME, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout

    def run(self, path: str, *arguments: str, **variables: Any) -> Outcome:
        """Run a playbook on the controller alone; other tests cover what happens on the machines."""
        return self.everywhere(path, "--limit", "localhost", *arguments, **variables)

    def everywhere(self, path: str, *arguments: str, **variables: Any) -> Outcome:
        """Run a playbook on all hosts."""
        State.of(NAME).calls.unlink(missing_ok=True)
        extra = ["--extra-vars", json.dumps(variables)]
        return Outcome(["ansible-playbook", path, "--inventory", "inventories/aws", *extra, *arguments])

    def changing(self) -> set[str]:
        """List the calls of the last playbook that could change something."""
        lines = map(json.loads, State.of(NAME).calls.read_text(encoding="utf-8").splitlines())
        calls = {f"{one['service']}:{one['action']}" for one in lines}
        return {call for call in calls if changes(call)} - {"freetier:GetAccountPlanState"}

    def costs(self) -> set[str]:
        """List the things that cost."""
        return costly(client("ec2")) - self.foreign

    def sizes(self) -> list[str]:
        """Log in to all instances and ask them for their CPUs and memory in MiB."""
        ask = "nproc; free --mebi | awk '/^Mem:/ {print $2}'"
        said = Outcome(["ansible", "app", "-i", "inventories/aws", "-m", "ansible.builtin.shell", "-a", ask, "-o"])
        assert said.ok, said.said
        return [line.rpartition("(stdout) ")[2].strip() for line in said.done.stdout.splitlines() if "(stdout)" in line]


def rules() -> list[dict[str, Any]]:
    """List the rules of the project's security group."""
    filters = [{"Name": "tag:Project", "Values": [PROJECT]}]
    (group,) = client("ec2").describe_security_groups(Filters=filters)["SecurityGroups"]
    return sorted(group["IpPermissions"], key=str)


def damage() -> None:
    """Terminate an instance and close the firewall, as by hand."""
    ec2, lost = client("ec2"), min(addresses())
    ec2.modify_instance_attribute(InstanceId=lost, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[lost])
    filters = [{"Name": "tag:Project", "Values": [PROJECT]}]
    (group,) = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the home of whoever runs the playbooks, with the rehearsal's state and the private key."""
    folder = tmp_path_factory.mktemp("day")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        try:
            options = ["--account", "new", "--controller-address", HOME_ADDRESS, "--policy", "docs/iam.md"]
            Day().rehearsal("up", "--port", str(PORT), "--network", NETWORK, *options)
            yield folder
        finally:
            Day().rehearsal("down")


@pytest.fixture
def day(place: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    """Make the clients of this process and the playbooks use an account that is new today."""
    # Before the home is another one: the programs of this environment do not depend on it.
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
        "AWS_ACCESS_KEY_ID": CREDENTIAL,
        "NO_PROXY": "*",
        "no_proxy": "*",
        "HOME": str(place),
        "XDG_STATE_HOME": str(place / "state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    made = Day()
    made.foreign = frozenset(costly(client("ec2")))
    return made


def test_life_on_the_free_plan_at_home(day: Day) -> None:
    """It is refused before anything is made, then made, locked out, let in, damaged, mended, resized, destroyed."""
    refused = day.run("site.yml", ec2_count=6)
    assert not refused.ok
    for words in (
        "ec2_instance_type is 't2.micro', which the account's Free plan does not launch; allowed are ",
        " t3.micro (8.76 USD a month)",
        ": that is 6 vCPUs beside 0 others, but the account may have 5 in eu-central-1 (quota L-1216C47A)",
        ": that is 6 Elastic IPs beside 0 others, but the account may have 5 in eu-central-1 (quota L-0263D0A3)",
    ):
        assert words in " ".join(refused.said.split())
    assert day.changing() == set()

    # Without the check AWS says it, when group and key pair are there.
    said = told(day.run("playbooks/provision.yml"))
    assert "not eligible for Free Tier" in said
    assert "To change: ec2_instance_type: on its plan the account launches only types that are eligible" in said
    assert day.costs() == set()

    made = day.run("site.yml", **MICRO)
    assert made.ok, made.said
    assert day.sizes() == ["2\\n1024"]

    before, opened = addresses(), rules()
    day.rehearsal("up", "--controller-address", NEXT_ADDRESS)
    locked_out = day.everywhere("playbooks/status.yml")
    assert not locked_out.ok
    assert (
        f"SSH is open to {PROJECT}: {HOME_ADDRESS}/32, but AWS sees this machine at {NEXT_ADDRESS}. Run "
        f"playbooks/provision.yml with me or {NEXT_ADDRESS}/32 in ec2_ssh_cidrs"
    ) in " ".join(locked_out.said.split())
    let_in = day.run("playbooks/provision.yml", **MICRO)
    assert (let_in.ok, let_in.changed) == (True, {"localhost": 1}), let_in.said
    assert day.changing() == {"ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"}
    moved = json.loads(json.dumps(opened).replace(HOME_ADDRESS, NEXT_ADDRESS))
    assert (addresses(), rules()) == (before, moved)
    assert day.sizes() == ["2\\n1024"]

    damage()
    repaired = day.run("playbooks/provision.yml", **MICRO)
    assert repaired.ok, repaired.said
    assert addresses().keys() != before.keys()
    assert (list(addresses().values()), rules()) == (list(before.values()), moved)

    resized = day.run("playbooks/resize.yml", **SMALL)
    assert resized.ok, resized.said
    assert day.sizes() == ["2\\n2048"]
    assert list(addresses().values()) == list(before.values())

    destroyed = day.run("playbooks/destroy.yml", confirm=PROJECT, data="delete")
    assert destroyed.ok, destroyed.said
    assert day.costs() == set()


def test_life_with_answers_that_are_late(day: Day) -> None:
    """Two instances with a role: what a call made is visible only after a while, and each run waits for it."""
    for action, count in (("RunInstances", 3), ("AssociateAddress", 3), ("iam:AddRoleToInstanceProfile", 1)):
        late = ["--action", action, "--count", str(count), "--seconds", str(LATE_S)]
        day.rehearsal("fault", "add", "stale", *late)
    role = {"ec2_count": 2, "ec2_instance_policies": ["arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"]}
    made = day.run("site.yml", **MICRO, **role)
    assert made.ok, made.said
    before, opened = addresses(), rules()
    assert {one["InstanceType"] for one in instances()} == {"t3.micro"}

    damage()
    # One of the two is made anew, the other gets its new type.
    repaired = day.run("site.yml", **SMALL, **role)
    assert repaired.ok, repaired.said
    assert len(before.keys() & addresses().keys()) == 1
    assert sorted(addresses().values()) == sorted(before.values())
    assert rules() == opened
    assert day.sizes() == ["2\\n2048", "2\\n2048"]
    assert day.rehearsal("fault", "list") == "no faults\n", "not all of it was late"

    again = day.run("site.yml", **SMALL, **role)
    assert (again.ok, again.changed["localhost"]) == (True, 0), again.said
    destroyed = day.run("playbooks/destroy.yml", confirm=PROJECT, data="delete")
    assert destroyed.ok, destroyed.said
    assert day.costs() == set()
