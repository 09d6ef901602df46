"""One rehearsal for all live tests, beside whatever else runs on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from rehearsal.state import Settings

NAME, PORT, NETWORK = "r3test", 7179, "10.93.0.0/16"
ROOT = Path(__file__).parents[3]
REGION = "eu-central-1"
NET_CLOSED = 2.0
"""Seconds after which a port that does not answer counts as closed."""


@dataclass
class Lab:
    """A running rehearsal, and what tests do with it."""

    environment: dict[str, str]
    key: Path
    ec2: Any
    port: int = PORT
    network: str = NETWORK
    launched: list[str] = field(default_factory=list)

    def command(self, *arguments: str, check: bool = True) -> str:
        """Run ``python -m rehearsal`` and return its output."""
        done = subprocess.run(
            [sys.executable, "-m", "rehearsal", "--name", NAME, *arguments],
            capture_output=True,
            check=False,
            cwd=ROOT,
            env=self.environment,
            text=True,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + done.stderr

    def host(self, *command: str) -> str:
        """Run a command on this machine."""
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    def import_key(self) -> None:
        """Make the key pair that all instances get."""
        self.ec2.import_key_pair(KeyName="live", PublicKeyMaterial=self.key.with_suffix(".pub").read_bytes())

    def client(self, service: str, **config: Any) -> Any:
        """Make a boto3 client."""
        settled = Config(retries={"total_max_attempts": 1}, **config)
        access = {"aws_access_key_id": "rehearsal", "aws_secret_access_key": "rehearsal"}
        endpoint = self.environment["AWS_ENDPOINT_URL"]
        return boto3.client(service, endpoint_url=endpoint, region_name=REGION, config=settled, **access)

    def image(self) -> str:
        """Find the AMI as the ec2 role does."""
        filters = [{"Name": "architecture", "Values": ["x86_64"]}]
        images = self.ec2.describe_images(Owners=["136693071363"], Filters=filters)["Images"]
        return str(max(images, key=lambda one: one["CreationDate"])["ImageId"])

    def run(self, wait: bool = True, **changes: Any) -> str:
        """Launch a t2.micro and return its id."""
        request = {"ImageId": self.image(), "InstanceType": "t2.micro", "KeyName": "live", "MinCount": 1, "MaxCount": 1}
        launched = str(self.ec2.run_instances(**(request | changes))["Instances"][0]["InstanceId"])
        self.launched.append(launched)
        if wait:
            told = self.describe(launched)
            assert told["State"]["Name"] == "running", told.get("StateReason")
        return launched

    def describe(self, instance: str) -> dict[str, Any]:
        """Describe an instance, after it has come to its next stable state."""
        found: dict[str, Any] = self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        return found

    def address(self, instance: str) -> str:
        """Return an instance's private address."""
        return str(self.describe(instance)["PrivateIpAddress"])

    def inside(self, instance: str, script: str, check: bool = True) -> str:
        """Run a shell script as root in an instance, whatever its security groups say."""
        command = ["docker", "exec", f"{NAME}-{instance}", "bash", "-c", script]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        assert done.returncode == 0 or not check, f"{script}: {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def ssh(self, address: str, script: str) -> str:
        """Run a shell script as admin, over SSH."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        command = ["ssh", *options, "-i", str(self.key), f"admin@{address}", script]
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout.strip()

    def open(self, address: str, port: int, source: str | None = None) -> bool:
        """Tell whether a port answers, from this machine or from inside an instance."""
        if source is None:
            try:
                socket.create_connection((address, port), timeout=NET_CLOSED).close()
            except OSError:
                return False
            return True
        script = f"timeout {NET_CLOSED} bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo open || true"
        return self.inside(source, script) == "open"

    def group(self, name: str, *rules: dict[str, Any]) -> str:
        """Make a security group."""
        made = str(self.ec2.create_security_group(GroupName=name, Description=name)["GroupId"])
        if rules:
            self.ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=list(rules))
        return made


def rule(port: int, cidr: str | None = None, group: str | None = None, protocol: str = "tcp") -> dict[str, Any]:
    """Write one permission."""
    peers: dict[str, Any] = {"IpRanges": [{"CidrIp": cidr}]} if cidr else {"UserIdGroupPairs": [{"GroupId": group}]}
    return {"IpProtocol": protocol, "FromPort": port, "ToPort": port, **peers}


def until(done: Callable[[], Any], limit: float = 20.0) -> Any:
    """Wait until a condition holds."""
    deadline = time.monotonic() + limit
    while not (found := done()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start a rehearsal with a key pair for all tests, and remove it at the end."""
    directory = tmp_path_factory.mktemp("live")
    key = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    settings = Settings(NAME, PORT, NETWORK, "")
    environment = {**os.environ, **settings.environment(), "XDG_STATE_HOME": str(directory / "state")}
    made = Lab(environment, key, None)
    made.command("up", "--port", str(PORT), "--network", NETWORK)
    try:
        made.ec2 = made.client("ec2")
        made.import_key()
        yield made
    finally:
        made.command("down")


@pytest.fixture(autouse=True)
def _terminate(lab: Lab) -> Iterator[None]:
    """Terminate the instances that a test leaves."""
    yield
    if lab.launched:
        lab.ec2.terminate_instances(InstanceIds=lab.launched)
        for instance in lab.launched:
            lab.describe(instance)
        lab.launched.clear()
