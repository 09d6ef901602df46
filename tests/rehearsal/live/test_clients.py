"""Unmodified clients: boto3, the AWS command line and amazon.aws."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rehearsal import network
from tests.live_page import aws_command_line
from tests.rehearsal.live.conftest import NAME, REGION, ROOT, Lab, rule

pytestmark = pytest.mark.docker

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  module_defaults:
    group/aws:
      region: eu-central-1
  vars:
    fleet:
      "tag:Name": ansible
      instance-state-name: [pending, running, stopping, stopped]
  tasks:
    - amazon.aws.ec2_security_group:
        name: ansible
        description: ansible
        rules: [{proto: tcp, ports: [22], cidr_ip: 10.0.0.0/8}]
        tags: {Name: ansible}
      register: group
    - amazon.aws.ec2_instance:
        name: ansible
        image_id: "{{ image }}"
        instance_type: t2.micro
        key_name: live
        security_groups: ["{{ group.group_id }}"]
        exact_count: 1
        filters: "{{ fleet }}"
        metadata_options: {http_tokens: required, http_put_response_hop_limit: 1}
        wait: true
      register: launched
    - amazon.aws.ec2_eip:
        device_id: "{{ (launched.instances | default([]) + launched.get('instances', []))[0].instance_id }}"
        tags: {Name: ansible}
        in_vpc: true
      register: address
"""

DESTROY = """
- hosts: localhost
  connection: local
  gather_facts: false
  module_defaults:
    group/aws:
      region: eu-central-1
  tasks:
    - amazon.aws.ec2_ami:
        instance_id: "{{ instance }}"
        name: ansible
        wait: true
        tags: {Name: ansible}
      register: baked
    - amazon.aws.ec2_ami:
        image_id: "{{ baked.image_id }}"
        state: absent
    - amazon.aws.ec2_eip:
        device_id: "{{ instance }}"
        state: absent
        release_on_disassociation: true
        in_vpc: true
    - amazon.aws.ec2_instance:
        instance_ids: ["{{ instance }}"]
        state: absent
    - amazon.aws.ec2_security_group:
        name: ansible
        state: absent
"""

INVENTORY = """
plugin: amazon.aws.aws_ec2
regions: [eu-central-1]
filters: {"tag:Name": ansible, instance-state-name: running}
hostnames: [instance-id]
compose:
  ansible_host: public_ip_address
"""


def resolvers(lab: Lab, instance: str) -> set[str]:
    """Read an instance's link /etc/resolv.conf and its name servers: its own one, and those that this one asks."""
    read = "awk '/^nameserver/ {print $2}' /etc/resolv.conf /run/systemd/resolve/resolv.conf"
    return set(lab.inside(instance, f"readlink /etc/resolv.conf; {read}").split())


def test_boto3_lives_an_instances_whole_life(lab: Lab) -> None:
    """Its waiters, which know AWS's states, work as well."""
    stub = {"../run/systemd/resolve/stub-resolv.conf", "127.0.0.53", *network.name_servers()}
    group = lab.group("boto3", rule(22, "10.0.0.0/8"))
    instance = lab.run(SecurityGroupIds=[group])
    assert lab.ssh(lab.address(instance), "id -un; hostname") == "admin\nip-" + lab.address(instance).replace(".", "-")
    assert resolvers(lab, instance) >= stub
    # As in an AMI from today: no playbook may take the empty lists for fresh.
    assert lab.inside(instance, "find /var/lib/apt/lists -maxdepth 0 -newermt '-1 day'") == "/var/lib/apt/lists"
    for order, waiter in (
        ("stop_instances", "instance_stopped"),
        ("start_instances", "instance_running"),
        ("reboot_instances", "instance_status_ok"),
        ("terminate_instances", "instance_terminated"),
    ):
        getattr(lab.ec2, order)(InstanceIds=[instance])
        lab.ec2.get_waiter(waiter).wait(InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        if order in {"start_instances", "reboot_instances"}:
            assert resolvers(lab, instance) >= stub
    assert "login" in lab.ec2.get_console_output(InstanceId=instance)["Output"].lower()


def test_aws_command_line(lab: Lab) -> None:
    """Only the environment of `python -m rehearsal env` leads it here."""
    environment = {**lab.environment, "AWS_DEFAULT_REGION": REGION, "AWS_CONFIG_FILE": "/dev/null", "AWS_PAGER": ""}

    aws = aws_command_line() / "aws"

    def call(*arguments: str) -> str:
        done = subprocess.run([aws, *arguments], capture_output=True, check=False, env=environment, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    identity = json.loads(call("sts", "get-caller-identity"))
    assert identity["Account"] == "000000000000"
    launch = ["--image-id", lab.image(), "--instance-type", "t2.micro", "--key-name", "live"]
    instance = call("ec2", "run-instances", *launch, "--query", "Instances[0].InstanceId", "--output", "text")
    lab.launched.append(instance)
    call("ec2", "wait", "instance-running", "--instance-ids", instance)
    call("ec2", "create-tags", "--resources", instance, "--tags", "Key=Name,Value=cli")
    query = ["--filters", "Name=tag:Name,Values=cli", "--query", "Reservations[].Instances[].State.Name"]
    assert json.loads(call("ec2", "describe-instances", *query)) == ["running"]
    call("ec2", "stop-instances", "--instance-ids", instance)
    call("ec2", "wait", "instance-stopped", "--instance-ids", instance)
    call("ec2", "terminate-instances", "--instance-ids", instance)
    call("ec2", "wait", "instance-terminated", "--instance-ids", instance)


def test_amazon_aws(lab: Lab, tmp_path: Path) -> None:
    """The same playbook changes nothing the second time, and the dynamic inventory finds what it made."""
    binaries = Path(sys.executable).parent
    config = {
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "json",
        "AWS_DEFAULT_REGION": REGION,
    }
    places = {"ANSIBLE_HOME": str(tmp_path), "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    environment = {**lab.environment, **config, **places, "ANSIBLE_DEPRECATION_WARNINGS": "false"}

    (tmp_path / "ansible.cfg").touch()

    def run(*command: str) -> Any:
        done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path, env=environment, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout[done.stdout.index("{") :])

    def play(text: str, **variables: str) -> int:
        (tmp_path / "play.yml").write_text(text, encoding="utf-8")
        said = run("ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"), "-e", json.dumps(variables))
        return int(said["stats"]["localhost"]["changed"])

    interpreter = {"ansible_python_interpreter": sys.executable, "image": lab.image()}
    assert play(PLAYBOOK, **interpreter) == 3
    assert play(PLAYBOOK, **interpreter) == 0
    (tmp_path / "aws_ec2.yml").write_text(INVENTORY, encoding="utf-8")
    hosts = run("ansible-inventory", "-i", str(tmp_path / "aws_ec2.yml"), "--list")["_meta"]["hostvars"]
    ((instance, known),) = hosts.items()
    assert lab.ssh(str(known["ansible_host"]["__ansible_unsafe"]), "id -un") == "admin"
    assert play(DESTROY, instance=instance, **interpreter) == 5
    labelled = ["docker", "ps", "--all", "--quiet", "--filter", f"name={NAME}-{instance}"]
    assert lab.host(*labelled) == ""


def test_machine_of_ones_own_is_asked_over_ssh(lab: Lab, tmp_path: Path) -> None:
    """With the inventory of docs/machines.md its memory and its ports count, not those of this machine."""
    instance = lab.run(SecurityGroupIds=[lab.group("own", rule(22, "10.0.0.0/8"))])
    lab.inside(instance, "systemd-run --unit taken python3 -m http.server 8080")
    folder = tmp_path / "own"
    shutil.copytree(ROOT / "inventories/own", folder)
    hosts = (folder / "hosts.yml").read_text(encoding="utf-8").replace("192.0.2.10", lab.address(instance))
    (folder / "hosts.yml").write_text(hosts, encoding="utf-8")
    service = {"name": "app", "context": "app", "path": "/", "server": "gunicorn", "replicas": 20, "memory": "128m"}
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "playbooks/preflight.yml", "--inventory", str(folder)]
    extra = {
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": f"-o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={tmp_path}/known",
        "stack_port": 8080,
        "stack_services": [service],
    }
    command += ["--extra-vars", json.dumps(extra)]
    said = subprocess.run(command, capture_output=True, check=False, cwd=ROOT, env=lab.environment, text=True)
    assert "20 x 128m of app are 2688 MiB, but this machine has 1024 MiB" in said.stdout + said.stderr, said.stdout
    assert "stack_port is 8080: something else listens on 0.0.0.0:8080" in said.stdout + said.stderr
