"""Regions and zones offer the types that AWS offers there."""

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.rehearsal.paper import KEY, refused, run


def test_region_describes_and_launches_only_its_own_types(ec2: Any) -> None:
    """Stockholm never had a t2, but an unpatched moto describes and launches one."""
    stockholm = boto3.client("ec2", region_name="eu-north-1")
    family = [{"Name": "instance-type", "Values": ["t2.*", "t3.micro"]}]
    (only,) = stockholm.describe_instance_types(Filters=family)["InstanceTypes"]
    assert only["InstanceType"] == "t3.micro"
    assert len(ec2.describe_instance_types(Filters=family)["InstanceTypes"]) > 1
    refused("InvalidInstanceType", stockholm.describe_instance_types, InstanceTypes=["t2.micro"])
    stockholm.import_key_pair(KeyName="key", PublicKeyMaterial=KEY)
    refused("Unsupported", run, ec2=stockholm, InstanceType="t2.micro")
    run(stockholm, InstanceType="t3.micro")


@pytest.mark.usefixtures("fleet")
def test_zone_without_a_type_names_those_that_have_it() -> None:
    """One zone of Virginia is too old for a t3."""
    virginia = boto3.client("ec2", region_name="us-east-1")
    virginia.import_key_pair(KeyName="key", PublicKeyMaterial=KEY)
    zone = {"Placement": {"AvailabilityZone": "us-east-1e"}, "InstanceType": "t3.micro"}
    with pytest.raises(ClientError, match=r"Unsupported.* \(us-east-1e\).* choosing us-east-1a, us-"):
        run(virginia, **zone)
    run(virginia, **zone | {"InstanceType": "t2.micro"})


def test_a_rule_for_ipv6_is_no_rule_for_ipv4(ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "2001:db8::7/128"}]}
    refused("InvalidParameterValue", ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[rule])
