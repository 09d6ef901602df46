"""The instances of the project as the account describes them, and their insides."""

from __future__ import annotations

import http.client
import os
from contextlib import closing
from typing import Any

import boto3
import testinfra
from testinfra.host import Host

from bench.project import ROOT, load_mapping

INVENTORY = ROOT / "inventories/aws"
KNOWN = load_mapping(INVENTORY / "aws_ec2.yml")
PROJECT = KNOWN["filters"]["tag:Project"]
REGION = KNOWN["regions"][0]


def client(service: str) -> Any:
    """Make a boto3 client for the account that the environment leads to.

    In a rehearsal it is an administrator's, for what the policy of the playbooks' user does not allow.
    """
    key = "administrator" if "AWS_ENDPOINT_URL" in os.environ else None
    return boto3.client(service, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=key)


def instances() -> list[dict[str, Any]]:
    """List the project's running instances as EC2 describes them, sorted by availability zone."""
    filters = [
        {"Name": "tag:Project", "Values": [PROJECT]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    reservations = client("ec2").describe_instances(Filters=filters)["Reservations"]
    found = [one for reservation in reservations for one in reservation["Instances"]]
    return sorted(found, key=lambda one: str(one["Placement"]["AvailabilityZone"]))


def addresses() -> dict[str, str]:
    """Return the public addresses by instance id."""
    return {str(one["InstanceId"]): str(one["PublicIpAddress"]) for one in instances()}


def serves(address: str) -> bool:
    """Tell whether the app answers at an address."""
    with closing(http.client.HTTPConnection(address, timeout=5)) as connection:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False


def names() -> dict[str, list[str]]:
    """Return the sorted addresses that names of the account point to, by name without the final point."""
    dns = client("route53")
    zones = [zone["Id"] for zone in dns.list_hosted_zones()["HostedZones"]]
    records = [one for zone in zones for one in dns.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]]
    return {
        str(one["Name"]).rstrip("."): sorted(str(value["Value"]) for value in one["ResourceRecords"])
        for one in records
        if one["Type"] == "A"
    }


def tagged() -> list[str]:
    """List the ARNs of what has the project's tag, as AWS's own service for tags finds it.

    Terminated instances, which it lists for a while, are left out; it knows no key pairs and addresses.
    """
    wanted = [{"Key": "Project", "Values": [PROJECT]}]
    found = client("resourcegroupstaggingapi").get_resources(TagFilters=wanted)["ResourceTagMappingList"]
    dead = client("ec2").describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["terminated"]}])
    ids = {str(one["InstanceId"]) for reservation in dead["Reservations"] for one in reservation["Instances"]}
    arns = {str(one["ResourceARN"]) for one in found}
    return sorted(arn for arn in arns if arn.rpartition("/")[2] not in ids)


def inside(instance_id: str) -> Host:
    """Connect to an instance through the inventory."""
    return testinfra.get_host(f"ansible://{instance_id}?ansible_inventory={INVENTORY}&force_ansible=True")
