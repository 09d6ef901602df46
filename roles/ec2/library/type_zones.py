"""Ansible module: the availability zones of a region that offer an instance type."""

from __future__ import annotations

from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError


def region_zones(client: Any) -> list[str]:
    """List the zones of the region, sorted; local and wavelength zones are left out."""
    there = [{"Name": "state", "Values": ["available"]}, {"Name": "zone-type", "Values": ["availability-zone"]}]
    return sorted(one["ZoneName"] for one in client.describe_availability_zones(Filters=there)["AvailabilityZones"])


def offering_zones(client: Any, instance_type: str) -> set[str]:
    """Ask in which zones a type is offered."""
    of_type = [{"Name": "instance-type", "Values": [instance_type]}]
    pages = client.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=of_type
    )
    return {one["Location"] for page in pages for one in page["InstanceTypeOfferings"]}


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={"instance_type": {"type": "str", "required": True}}, supports_check_mode=True
    )
    client, name = module.client("ec2"), module.params["instance_type"]
    try:
        offering = offering_zones(client, name)
        module.exit_json(changed=False, zones=[zone for zone in region_zones(client) if zone in offering])
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg=f"The zones that offer {name} could not be listed")


if __name__ == "__main__":
    main()
