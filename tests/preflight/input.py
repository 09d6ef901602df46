"""Valid input, in which each test makes its mistake."""

import socket
from typing import Any

from moto.ec2.models.amis import AMIS

from tests.project import SERVICE

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
