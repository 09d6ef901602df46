"""Reads out of moto's memory what an instance may know about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.models.instances import Instance

from rehearsal import CREDENTIAL
from rehearsal.adapter import all_instances, groups_of
from rehearsal.instance import Machine
from rehearsal.metadata import Options, Subject, Tree

TIME = "%Y-%m-%dT%H:%M:%SZ"

CREDENTIALS_LAST = timedelta(hours=6)


def subject_at(machines: Mapping[str, Machine], address: str) -> Subject | None:
    """Find the instance that sends from a private or Elastic IP; None when there is none."""
    for instance in all_instances():
        if instance.state != "terminated" and address in {instance.private_ip, instance.public_ip}:
            machine = machines.get(instance.id)
            return subject(instance, machine.ends if machine else None)
    return None


def subject(instance: Instance, ends: float | None) -> Subject:
    """Describe an instance to itself; ``ends`` is when it is taken away, in seconds since the epoch."""
    chosen = instance.metadata_options
    options = Options(
        enabled=chosen.http_endpoint != "disabled",
        tokens_required=chosen.http_tokens == "required",
        hops=int(chosen.http_put_response_hop_limit or 1),
    )
    tree: dict[str, Tree | str] = {"meta-data": _metadata(instance) | _spot(ends), "dynamic": _dynamic(instance)}
    if instance.user_data:
        tree["user-data"] = instance.user_data.decode()
    return Subject(instance.id, options, tree)


def _spot(ends: float | None) -> dict[str, Tree | str]:
    """Announce the end of an instance that is taken back."""
    if ends is None:
        return {}
    when = f"{datetime.fromtimestamp(ends, UTC):{TIME}}"
    return {"spot": {"instance-action": json.dumps({"action": "terminate", "time": when}), "termination-time": when}}


def _metadata(instance: Instance) -> dict[str, Tree | str]:
    zone = str(instance.availability_zone)
    address = str(instance.private_ip)
    name = f"ip-{address.replace('.', '-')}"
    tree: dict[str, Tree | str] = {
        "ami-id": str(instance.image_id),
        "ami-launch-index": str(instance.ami_launch_index),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {"ami": "xvda", "root": str(instance.root_device_name)},
        "hostname": name,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": "spot" if instance.lifecycle == "spot" else "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": name,
        "local-ipv4": address,
        "placement": {"availability-zone": zone, "region": instance.region_name},
        "profile": "default-hvm",
        "reservation-id": _reservation(instance),
        "security-groups": "\n".join(sorted(str(group.name) for group in groups_of(instance))),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    interface = instance.nics.get(0)
    if interface is not None:
        tree["mac"] = interface.mac_address
        tree["network"] = {"interfaces": {"macs": {interface.mac_address: _interface(instance, interface)}}}
    if instance.public_ip:
        tree["public-ipv4"] = str(instance.public_ip)
    if instance.key_name:
        pairs = instance.ec2_backend.describe_key_pairs(key_names=[])
        key = next((pair.public_key.strip() for pair in pairs if pair.key_name == instance.key_name), None)
        if key:
            tree["public-keys"] = {"0": {"openssh-key": key}}
    if instance.metadata_options.instance_metadata_tags == "enabled":
        tree["tags"] = {"instance": {tag["key"]: tag["value"] for tag in instance.get_tags()}}
    return tree | _role(instance)


def _reservation(instance: Instance) -> str:
    found = (one.id for one in list(instance.ec2_backend.reservations.values()) if instance in one.instances)
    return next(found, "")


def _interface(instance: Instance, interface: Any) -> Tree:
    groups = groups_of(instance)
    tree = {
        "device-number": "0",
        "interface-id": str(interface.id),
        "local-ipv4s": str(instance.private_ip),
        "mac": str(interface.mac_address),
        "owner-id": str(instance.owner_id),
        "security-group-ids": "\n".join(str(group.id) for group in groups),
        "security-groups": "\n".join(sorted(str(group.name) for group in groups)),
        "subnet-id": str(interface.subnet.id),
        "subnet-ipv4-cidr-block": str(interface.subnet.cidr_block),
        "vpc-id": str(interface.subnet.vpc_id),
        "vpc-ipv4-cidr-block": str(instance.ec2_backend.get_vpc(interface.subnet.vpc_id).cidr_block),
    }
    return tree | ({"public-ipv4s": str(instance.public_ip)} if instance.public_ip else {})


def _role(instance: Instance) -> dict[str, Tree | str]:
    """Give the credentials of an instance profile; they are as empty as everybody's here."""
    association = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
    if association is None:
        return {}
    profile, now = association.iam_instance_profile, utcnow()
    info = {"Code": "Success", "LastUpdated": f"{now:{TIME}}", "InstanceProfileArn": profile.arn}
    info["InstanceProfileId"] = profile.id
    credentials = {"Code": "Success", "LastUpdated": f"{now:{TIME}}", "Type": "AWS-HMAC"}
    credentials |= {"AccessKeyId": CREDENTIAL, "SecretAccessKey": CREDENTIAL, "Token": CREDENTIAL}
    credentials["Expiration"] = f"{now + CREDENTIALS_LAST:{TIME}}"
    roles = {role.name: json.dumps(credentials, indent=2) for role in profile.roles}
    return {"iam": {"info": json.dumps(info, indent=2), "security-credentials": roles}}


def _dynamic(instance: Instance) -> Tree:
    document = {
        "accountId": instance.owner_id,
        "architecture": instance.architecture,
        "availabilityZone": instance.availability_zone,
        "billingProducts": None,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "kernelId": None,
        "pendingTime": f"{instance.launch_time:{TIME}}",
        "privateIp": instance.private_ip,
        "ramdiskId": None,
        "region": instance.region_name,
        "version": "2017-09-30",
    }
    return {"instance-identity": {"document": json.dumps(document, indent=2)}}
