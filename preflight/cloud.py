"""Asks AWS once for what several checks need."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import boto3
from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict
from botocore.exceptions import ClientError

from preflight.variables import Variables
from roles.ec2.filter_plugins.ec2_plan import ec2_fleet

Described = dict[str, Any]
"""Something as EC2 describes it."""

ALIVE = ["pending", "running", "stopping", "stopped"]


class Cloud:
    """The account in its region; ``notes`` are what a person is told of it when nothing is wrong."""

    def __init__(self, variables: Variables, prices: dict[str, Any]) -> None:
        """Ask nothing yet; ``prices`` are those of files/prices.yml."""
        self.variables = variables
        self.prices = prices
        self.region = str(variables["ec2_region"])
        self._clients: dict[str, Any] = {}
        self.ec2 = self.client("ec2")
        self.notes: list[str] = []
        self._types: dict[str, Described] = {}

    def client(self, service: str, **more: Any) -> Any:
        """Make the client of a service, for the region unless another one is given."""
        if service not in self._clients:
            self._clients[service] = boto3.client(service, **{"region_name": self.region} | more)
        return self._clients[service]

    def type(self, name: str) -> Described:
        """Describe an instance type; each is asked for once."""
        if name not in self._types:
            (self._types[name],) = self.ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
        return self._types[name]

    def vcpus(self, name: str) -> int:
        """Ask how many vCPUs an instance type has."""
        return int(self.type(name)["VCpuInfo"]["DefaultVCpus"])

    @cached_property
    def wanted_type(self) -> Described | None:
        """The type that is asked for; None where the region has no such type."""
        try:
            return self.type(self.variables["ec2_instance_type"])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidInstanceType":
                raise
            return None

    @cached_property
    def instances(self) -> list[Described]:
        """All instances of the region that are not terminated or about to be, whoever made them."""
        alive = [{"Name": "instance-state-name", "Values": ALIVE}]
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=alive)
        return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]

    @cached_property
    def ours(self) -> list[Described]:
        """The instances with the project's tags."""
        return [one for one in self.instances if self.has_tags(one, Role="app")]

    @cached_property
    def missing(self) -> int:
        """How many instances are to be launched."""
        return max(0, int(self.variables["ec2_count"]) - len(self.ours))

    @cached_property
    def vpcs(self) -> list[Described]:
        """All networks of the region."""
        pages = self.ec2.get_paginator("describe_vpcs").paginate()
        return [one for page in pages for one in page["Vpcs"]]

    @cached_property
    def makes_vpc(self) -> bool:
        """Whether a network of the project's own is to be made."""
        block = self.variables.get("ec2_vpc_cidr")
        return bool(block) and not any(one["CidrBlock"] == block and self.has_tags(one) for one in self.vpcs)

    @cached_property
    def image_id(self) -> str:
        """The machine image of new instances: the one named, or else the oldest instance's; empty without either."""
        known = [camel_dict_to_snake_dict(one) for one in self.ours]
        return str(self.variables.get("ec2_ami_id") or ec2_fleet(known, (), len(known))["image"])

    @cached_property
    def image(self) -> Described | None:
        """The machine image of new instances, as the role looks it up; None where it is not available."""
        asked = [{"Name": "state", "Values": ["available"]}]
        if self.image_id:
            asked.append({"Name": "image-id", "Values": [self.image_id]})
            found = self.ec2.describe_images(Filters=asked)["Images"]
        else:
            asked.append({"Name": "name", "Values": [self.variables["ec2_ami_name"]]})
            found = self.ec2.describe_images(Owners=[self.variables["ec2_ami_owner"]], Filters=asked)["Images"]
        return max(found, key=lambda one: str(one["CreationDate"]), default=None)

    def has_tags(self, thing: Described, **more: str) -> bool:
        """Tell whether something carries the project's tag, and more tags."""
        tags = {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}
        return {"Project": self.variables["ec2_project"], **more}.items() <= tags.items()
