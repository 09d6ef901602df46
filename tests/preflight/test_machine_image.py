"""New instances need an image that exists and that their type can boot."""

from typing import Any

import boto3
import pytest

from preflight.machine_image import image_problems
from tests.preflight.cloud import cloud, launch
from tests.preflight.input import IMAGE, REGION

NO_IMAGE = "eu-central-1 has no such image; allowed is another one with ec2_ami_id"
pytestmark = pytest.mark.usefixtures("aws")


def problems(**changes: Any) -> list[str]:
    return list(image_problems(cloud(**changes)))


@pytest.mark.parametrize("ami", ["ami-0123456789abcdef0", "debian"])
def test_image_that_is_not_there_is_refused(ami: str) -> None:
    assert problems(ec2_ami_id=ami) == [f"ec2_ami_id is {ami!r}: {NO_IMAGE}"]


def test_name_without_an_image_is_refused() -> None:
    """New regions get Debian's image later than others."""
    said = f"ec2_ami_name is 'debian-99-*', ec2_ami_owner '136693071363': {NO_IMAGE}"
    assert problems(ec2_ami_name="debian-99-*") == [said]


def test_image_of_another_architecture_is_refused() -> None:
    (problem,) = problems(ec2_ami_name="debian-13-arm64-*")
    assert problem.startswith("ec2_ami_name is 'debian-13-arm64-*', ec2_ami_owner '136693071363': debian-13-arm64-2026")
    said = "is arm64, but a t2.micro (ec2_instance_type) boots i386 and x86_64 only; allowed is an image of that "
    assert problem.endswith(f"{said}architecture")


def test_instances_that_are_there_need_no_image() -> None:
    launch(Project="flask-fleet", Role="app")
    assert problems(ec2_ami_name="debian-99-*") == []
    assert problems(ec2_ami_name="debian-99-*", ec2_count=2) == []
    boto3.client("ec2", region_name=REGION).deregister_image(ImageId=IMAGE)
    assert problems(ec2_count=2) == [f"New instances boot what the oldest one boots, {IMAGE}: {NO_IMAGE}"]
