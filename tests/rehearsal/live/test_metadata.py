"""Instance metadata, read inside an instance and inside a container in it."""

from __future__ import annotations

import json

import pytest

from tests.rehearsal.live.conftest import Lab
from tests.rehearsal.live.test_groups import NESTED

pytestmark = pytest.mark.docker

BASE = "http://169.254.169.254/latest"
TOKEN = f"curl -s -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {BASE}/api/token"


def read(lab: Lab, instance: str, path: str, token: bool = True) -> str:
    """Read a path as root in the instance."""
    header = f'-H "X-aws-ec2-metadata-token: $({TOKEN})"' if token else ""
    return lab.inside(instance, f"curl -sf -m 2 {header} {BASE}/{path}", check=False)


def test_instance_knows_itself(lab: Lab) -> None:
    """Ansible's ec2_metadata_facts, cloud tools and people ask for these values."""
    instance = lab.run(
        UserData="#!/bin/sh\ntrue\n",
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "me"}]}],
    )
    told = lab.describe(instance)
    expected = {
        "meta-data/instance-id": instance,
        "meta-data/ami-id": told["ImageId"],
        "meta-data/instance-type": "t2.micro",
        "meta-data/local-ipv4": told["PrivateIpAddress"],
        "meta-data/public-ipv4": told["PublicIpAddress"],
        "meta-data/placement/availability-zone": told["Placement"]["AvailabilityZone"],
        "meta-data/placement/region": "eu-central-1",
        "meta-data/security-groups": "default",
        "meta-data/public-keys/0/openssh-key": lab.key.with_suffix(".pub").read_text(encoding="utf-8").strip(),
        "meta-data/tags/instance/Name": "me",
        "user-data": "#!/bin/sh\ntrue",
    }
    assert {path: read(lab, instance, path) for path in expected} == expected
    document = json.loads(read(lab, instance, "dynamic/instance-identity/document"))
    assert (document["instanceId"], document["accountId"]) == (instance, "000000000000")
    assert read(lab, instance, "meta-data/instance-id", token=False) == ""


def test_container_cannot_read_it_with_hop_limit_1(lab: Lab) -> None:
    """The answer with the token ends at the instance, and with one hop more it arrives."""
    instance = lab.run(MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1})
    lab.inside(instance, NESTED)
    in_container = f"ip netns exec box {TOKEN}"
    assert lab.inside(instance, in_container, check=False) == ""
    assert lab.inside(instance, TOKEN)
    lab.ec2.modify_instance_metadata_options(InstanceId=instance, HttpPutResponseHopLimit=2)
    assert len(lab.inside(instance, in_container)) > 40
    assert read(lab, instance, "meta-data/instance-id", token=False) == ""
    lab.ec2.modify_instance_metadata_options(InstanceId=instance, HttpTokens="optional")
    assert read(lab, instance, "meta-data/instance-id", token=False) == instance
    lab.ec2.modify_instance_metadata_options(InstanceId=instance, HttpEndpoint="disabled")
    assert read(lab, instance, "meta-data/instance-id") == ""
