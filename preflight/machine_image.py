"""Checks that new instances have an image to boot, and can boot it."""

from __future__ import annotations

from collections.abc import Iterator

from preflight.cloud import Cloud
from preflight.instance_types import ARCHITECTURE


def image_problems(cloud: Cloud) -> Iterator[str]:
    """Check the machine image of the instances that are to be launched."""
    variables = cloud.variables
    if cloud.wanted_type is None or not cloud.missing:
        return
    architectures = cloud.wanted_type["ProcessorInfo"]["SupportedArchitectures"]
    if ARCHITECTURE not in architectures:
        return
    if cloud.image is None:
        yield f"{named(cloud)}: {cloud.region} has no such image; allowed is another one with ec2_ami_id"
        return
    image = f"{cloud.image['Name']} ({cloud.image['ImageId']})"
    if cloud.image["Architecture"] not in architectures:
        yield (
            f"{named(cloud)}: {image} is {cloud.image['Architecture']}, but a {variables['ec2_instance_type']} "
            f"(ec2_instance_type) boots {' and '.join(architectures)} only; allowed is an image of that architecture"
        )


def named(cloud: Cloud) -> str:
    """Say which variable chose the image."""
    if cloud.variables.get("ec2_ami_id"):
        return f"ec2_ami_id is {cloud.image_id!r}"
    if cloud.image_id:
        return f"New instances boot what the oldest one boots, {cloud.image_id}"
    return f"ec2_ami_name is {cloud.variables['ec2_ami_name']!r}, ec2_ami_owner {cloud.variables['ec2_ami_owner']!r}"
