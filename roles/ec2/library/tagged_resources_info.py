"""Ansible module: lists everything in the account that belongs to the project.

It asks for what has the tag ``Project``. A role and a profile are asked for by name and then for the tag. Records of
Route 53 have no tags, so the name decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError

Raw = Mapping[str, Any]
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}

Unknown = dict[str, str]
"""The IAM action that is missing, by kind of thing."""

Resources = dict[str, list[dict[str, Any]]]
"""Things by kind, each with ``id``, ``about`` and ``raw``."""

POLL_S = 3
WAIT_S = 60


@dataclass(frozen=True)
class Kind:
    """How one kind of thing is found in EC2.

    Attributes:
        operation: The method of boto3's client.
        path: Keys of the lists in its answer, with points between.
        key: Where a thing's id is.
        about: Describes a thing for a person.
        states: Filter that leaves out those that are as good as gone.
    """

    name: str
    operation: str
    path: str
    key: str
    about: Callable[[Raw], str]
    states: tuple[str, tuple[str, ...]] | None = None


def _instance(one: Raw) -> str:
    address = one.get("PublicIpAddress") or one.get("PrivateIpAddress") or "no address"
    return f"{one['InstanceType']}, {one['State']['Name']}, {address}"


def _volume(one: Raw) -> str:
    users = [attachment["InstanceId"] for attachment in one["Attachments"]]
    return f"{one['Size']} GiB, {'of ' + users[0] if users else 'not attached'}"


def _snapshot(one: Raw) -> str:
    return f"{one['VolumeSize']} GiB, of {one['StartTime']:%Y-%m-%d %H:%M} UTC, {one.get('Description', '')}"


LIVING = ("pending", "running", "stopping", "stopped", "shutting-down")

KINDS = (
    Kind("instance", "describe_instances", "Reservations.Instances", "InstanceId", _instance,
         ("instance-state-name", LIVING)),
    Kind("volume", "describe_volumes", "Volumes", "VolumeId", _volume,
         ("status", ("creating", "available", "in-use"))),
    Kind("address", "describe_addresses", "Addresses", "PublicIp",
         lambda one: f"of {one['InstanceId']}" if one.get("InstanceId") else "of no instance"),
    Kind("security group", "describe_security_groups", "SecurityGroups", "GroupId", lambda one: str(one["GroupName"])),
    Kind("key pair", "describe_key_pairs", "KeyPairs", "KeyName", lambda one: str(one["KeyPairId"])),
    Kind("internet gateway", "describe_internet_gateways", "InternetGateways", "InternetGatewayId", lambda _: ""),
    Kind("route table", "describe_route_tables", "RouteTables", "RouteTableId", lambda one: f"in {one['VpcId']}"),
    Kind("subnet", "describe_subnets", "Subnets", "SubnetId",
         lambda one: f"{one['CidrBlock']}, {one['AvailabilityZone']}"),
    Kind("network", "describe_vpcs", "Vpcs", "VpcId", lambda one: str(one["CidrBlock"])),
    Kind("snapshot", "describe_snapshots", "Snapshots", "SnapshotId", _snapshot),
)  # fmt: skip
"""In the order in which they are shown."""


def _inside(answer: Raw, path: str) -> list[Any]:
    """Follow the keys of nested lists."""
    things: list[Any] = [answer]
    for key in path.split("."):
        things = [inner for one in things for inner in one[key]]
    return things


def unless_denied(client: Any, ask: Callable[[], list[Any]], kind: str, unknown: Unknown) -> list[Any]:
    """Ask for things, and note where the policy does not allow it: what can be found is still worth removing."""
    try:
        return ask()
    except ClientError as error:
        if error.response["Error"]["Code"] not in DENIED:
            raise
        unknown[kind] = f"{client.meta.service_model.service_name}:{error.operation_name}"
        return []


def of_ec2(client: Any, project: str, unknown: Unknown) -> Resources:
    """List what EC2 has with the project's tag."""

    def ask(kind: Kind, filters: list[dict[str, Any]]) -> list[Any]:
        answers = (
            client.get_paginator(kind.operation).paginate(Filters=filters)
            if client.can_paginate(kind.operation)
            else [getattr(client, kind.operation)(Filters=filters)]
        )
        return [one for answer in answers for one in _inside(answer, kind.path)]

    found = {}
    for kind in KINDS:
        filters = [{"Name": "tag:Project", "Values": [project]}]
        if kind.states:
            filters.append({"Name": kind.states[0], "Values": list(kind.states[1])})
        things = unless_denied(client, partial(ask, kind, filters), kind.name, unknown)
        found[kind.name] = [{"id": one[kind.key], "about": kind.about(one), "raw": one} for one in things]
    return found


def of_iam(client: Any, name: str, project: str, unknown: Unknown) -> Resources:
    """List the instance profile and its role, which have the same name."""

    def ask(question: Callable[..., Any], **about: str) -> list[Any]:
        try:
            (raw,) = (value for key, value in question(**about).items() if key in {"InstanceProfile", "Role"})
        except client.exceptions.NoSuchEntityException:
            return []
        return [raw] if {"Key": "Project", "Value": project} in raw.get("Tags", []) else []

    asked = {
        "instance profile": partial(ask, client.get_instance_profile, InstanceProfileName=name),
        "role": partial(ask, client.get_role, RoleName=name),
    }
    return {
        kind: [{"id": name, "about": raw["Arn"], "raw": raw} for raw in unless_denied(client, question, kind, unknown)]
        for kind, question in asked.items()
    }


def of_dns(client: Any, zone: str, record: str, unknown: Unknown) -> Resources:
    """Look for the DNS record in the hosted zone; an empty zone has none."""
    wanted = f"{record.rstrip('.')}."

    def ask() -> list[Any]:
        found = []
        zones = client.list_hosted_zones_by_name(DNSName=zone)["HostedZones"] if zone else []
        for one in zones:
            if one["Name"] == f"{zone.rstrip('.')}." and not one["Config"].get("PrivateZone"):
                answer = client.list_resource_record_sets(
                    HostedZoneId=one["Id"], StartRecordName=wanted, StartRecordType="A", MaxItems="1"
                )
                found += [raw for raw in answer["ResourceRecordSets"] if (raw["Name"], raw["Type"]) == (wanted, "A")]
        return found

    found = unless_denied(client, ask, "DNS record", unknown)
    return {"DNS record": [{"id": wanted, "about": _values(raw), "raw": raw} for raw in found]}


def _values(record: Raw) -> str:
    return "A " + " ".join(value["Value"] for value in record.get("ResourceRecords", []))


def lines(resources: Resources) -> Iterator[str]:
    """Yield a line for each thing, for a person."""
    for kind, things in resources.items():
        for one in things:
            yield f"{kind:17} {one['id']:32} {one['about']}".rstrip()


def when_gone(look: Callable[[], Resources], kinds: Collection[str], seconds: float) -> Resources:
    """List what there is, again and again until nothing is left of some kinds or the time is over."""
    deadline = time.monotonic() + seconds
    resources = look()
    while any(resources[kind] for kind in kinds) and time.monotonic() < deadline:
        time.sleep(POLL_S)
        resources = look()
    return resources


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            # Name of the instance profile as well.
            "role": {"type": "str", "required": True},
            "zone": {"type": "str", "default": ""},
            "record": {"type": "str", "default": ""},
            # "keep" sets the snapshots apart, which hold what was on the disks.
            "data": {"type": "str", "choices": ["keep", "delete"], "default": "keep"},
            # Kinds, of which to wait until there is none left, because AWS takes a while to forget.
            "gone": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    clients = {name: module.client(name) for name in ("ec2", "iam", "route53")}

    unknown: Unknown = {}

    def look() -> Resources:
        return (
            of_ec2(clients["ec2"], wanted["project"], unknown)
            | of_iam(clients["iam"], wanted["role"], wanted["project"], unknown)
            | of_dns(clients["route53"], wanted["zone"], wanted["record"], unknown)
        )

    try:
        resources = when_gone(look, wanted["gone"], WAIT_S)
        kept = {"snapshot": resources.pop("snapshot")} if wanted["data"] == "keep" else {}
        listed = {"lines": list(lines(resources)), "kept_lines": list(lines(kept))}
        module.exit_json(resources=resources, **listed, unknown=unknown)
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="What belongs to the project could not be listed")


if __name__ == "__main__":
    main()
