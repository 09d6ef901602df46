"""Valid input, in which each test makes its mistake."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from moto.ec2.models.amis import AMIS

from tests.project import ROOT, SERVICE

REGION = "eu-central-1"
IMAGE = AMIS[0]["ami_id"]
"""An image that moto has, whichever list of images it was given."""


def service(**changes: Any) -> dict[str, Any]:
    return SERVICE | changes


def stack(**changes: Any) -> dict[str, Any]:
    return {
        "accessory_services": [],
        "ec2_ami_name": "debian-13-amd64-*",
        "ec2_ami_owner": "136693071363",
        "ec2_count": 1,
        "ec2_elastic_ip": True,
        "ec2_private_key_file": "/no/such/key",
        "ec2_project": "flask-fleet",
        "ec2_region": REGION,
        "ec2_instance_type": "t2.micro",
        "stack_address": "127.0.0.1",
        "stack_name": "flask-fleet",
        "stack_nginx_memory": "64m",
        "stack_port": 7151,
        "stack_services": [service()],
        "stack_surge": 1,
    } | changes


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ansible(home: Path, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of Ansible, without the shell's variables for Ansible; stdout has stderr in it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    environment |= {"ANSIBLE_HOME": str(home), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 600}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, **how)
