"""A rehearsal without containers: moto with our patches in this process, and short functions to call it."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from rehearsal.fleet import Fleet
from rehearsal.instance import Machine
from rehearsal.state import Settings

KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me"


class PaperFleet(Fleet):
    """A fleet whose orders succeed at once."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.baked: list[tuple[str, bool]] = []

    def launch(self, instance: Any, machine: Machine) -> None:
        self.machines[instance.id] = machine
        instance.become("running")

    def start(self, instance: Any) -> None:
        instance.become("running")

    def stop(self, instance: Any) -> None:
        instance.become("stopped")

    def reboot(self, instance: Any) -> None:
        """Do nothing."""

    def bake(self, instance: Any, image: Any, reboot: bool) -> None:
        """Record what would be baked; the image is never ready."""
        image.become("pending")
        self.baked.append((instance.id, reboot))

    def terminate(self, instance: Any) -> None:
        instance.become("terminated")


def newest_ami(ec2: Any, architecture: str = "x86_64") -> str:
    """Find the image as the ec2 role does."""
    filters = [{"Name": "name", "Values": ["debian-13-*"]}, {"Name": "architecture", "Values": [architecture]}]
    images = ec2.describe_images(Owners=["136693071363"], Filters=filters)["Images"]
    return str(max(images, key=lambda image: image["CreationDate"])["ImageId"])


def run(ec2: Any, **changes: Any) -> dict[str, Any]:
    request = {"ImageId": newest_ami(ec2), "InstanceType": "t2.micro", "KeyName": "key", "MinCount": 1, "MaxCount": 1}
    launched: dict[str, Any] = ec2.run_instances(**(request | changes))["Instances"][0]
    return launched


def describe(ec2: Any, instance: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0][
        "Instances"
    ][0]
    return found


def refused(code: str, call: Any, **arguments: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code
