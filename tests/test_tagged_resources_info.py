"""What destroy finds: everything that is the project's, and nothing of anybody else."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from roles.ec2.library import tagged_resources_info
from roles.ec2.library.tagged_resources_info import Resources, lines, of_dns, of_ec2, of_iam, when_gone

REGION = "eu-central-1"
PROJECT = "mine"
TRUST = '{"Version": "2012-10-17", "Statement": []}'


@pytest.fixture(autouse=True)
def aws() -> Iterator[None]:
    """Answer as AWS, without a network."""
    with mock_aws():
        yield


@pytest.fixture
def ec2() -> Any:
    """Return a client of EC2."""
    return boto3.client("ec2", region_name=REGION)


def tagged(kind: str, project: str = PROJECT) -> list[dict[str, Any]]:
    """Tag a thing when it is made."""
    return [{"ResourceType": kind, "Tags": [{"Key": "Project", "Value": project}]}]


def make_everything(ec2: Any, project: str) -> None:
    """Make a tagged thing of each kind."""
    block = "10.0.0.0/16"
    vpc = ec2.create_vpc(CidrBlock=block, TagSpecifications=tagged("vpc", project))["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", TagSpecifications=tagged("subnet", project))
    ec2.create_internet_gateway(TagSpecifications=tagged("internet-gateway", project))
    ec2.create_route_table(VpcId=vpc, TagSpecifications=tagged("route-table", project))
    ec2.create_security_group(
        GroupName=project, Description="-", VpcId=vpc, TagSpecifications=tagged("security-group", project)
    )
    ec2.create_key_pair(KeyName=project, TagSpecifications=tagged("key-pair", project))
    ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip", project))
    launched = ec2.run_instances(
        ImageId=ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        MinCount=1,
        MaxCount=1,
        InstanceType="t2.micro",
        SubnetId=subnet["Subnet"]["SubnetId"],
        TagSpecifications=tagged("instance", project) + tagged("volume", project),
    )["Instances"][0]["InstanceId"]
    volumes = ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [launched]}])["Volumes"]
    ec2.create_snapshot(VolumeId=volumes[0]["VolumeId"], TagSpecifications=tagged("snapshot", project))


def counted(resources: Resources) -> dict[str, int]:
    """Count the things of each kind."""
    return {kind: len(things) for kind, things in resources.items() if things}


def test_one_of_each_kind_is_found(ec2: Any) -> None:
    """Those of another project in the same account are not found."""
    make_everything(ec2, PROJECT)
    make_everything(ec2, "theirs")
    resources = of_ec2(ec2, PROJECT, {})
    assert counted(resources) == {kind.name: 1 for kind in tagged_resources_info.KINDS}
    carried = ec2.describe_tags(
        Filters=[{"Name": "key", "Values": ["Project"]}, {"Name": "value", "Values": [PROJECT]}]
    )
    assert {tag["ResourceId"] for tag in carried["Tags"]} == {
        one["raw"].get("KeyPairId") or one["raw"].get("AllocationId") or one["id"]
        for things in resources.values()
        for one in things
    }


def test_empty_account_has_nothing(ec2: Any) -> None:
    """The default network and the default group are not the project's."""
    assert counted(of_ec2(ec2, PROJECT, {})) == {}
    assert list(lines(of_ec2(ec2, PROJECT, {}))) == []


def test_terminated_instance_is_gone(ec2: Any) -> None:
    """EC2 shows it for another hour."""
    make_everything(ec2, PROJECT)
    (instance,) = of_ec2(ec2, PROJECT, {})["instance"]
    ec2.terminate_instances(InstanceIds=[instance["id"]])
    assert of_ec2(ec2, PROJECT, {})["instance"] == []


def test_line_names_the_thing_and_what_matters(ec2: Any) -> None:
    """A person decides from the line."""
    make_everything(ec2, PROJECT)
    text = "\n".join(lines(of_ec2(ec2, PROJECT, {})))
    (instance,) = of_ec2(ec2, PROJECT, {})["instance"]
    assert f"{instance['id']}" in text
    assert f"t2.micro, running, {instance['raw']['PrivateIpAddress']}" in text
    assert f"8 GiB, of {instance['id']}" in text
    assert "10.0.1.0/24, eu-central-1" in text


def test_role_is_ours_only_with_the_tag() -> None:
    """Names in IAM are shared by the whole account."""
    iam = boto3.client("iam")
    tags = [{"Key": "Project", "Value": PROJECT}]
    assert counted(of_iam(iam, "name", PROJECT, {})) == {}
    iam.create_role(RoleName="name", AssumeRolePolicyDocument=TRUST, Tags=tags)
    assert counted(of_iam(iam, "name", PROJECT, {})) == {"role": 1}
    iam.create_instance_profile(InstanceProfileName="name", Tags=tags)
    assert counted(of_iam(iam, "name", PROJECT, {})) == {"role": 1, "instance profile": 1}
    assert counted(of_iam(iam, "name", "theirs", {})) == {}


def test_what_the_policy_does_not_allow_is_noted_and_the_rest_is_found(ec2: Any) -> None:
    """A destroy that ended there would let the instances go on costing."""
    make_everything(ec2, PROJECT)
    ec2.meta.events.register_first("before-call.ec2.DescribeAddresses", refuse)
    unknown: dict[str, str] = {}
    known = {kind.name for kind in tagged_resources_info.KINDS}
    assert counted(of_ec2(ec2, PROJECT, unknown)).keys() == known - {"address"}
    assert unknown == {"address": "ec2:DescribeAddresses"}
    iam = boto3.client("iam")
    with Stubber(iam) as stubber:
        for operation in ("get_instance_profile", "get_role"):
            stubber.add_client_error(operation, "AccessDenied")
        assert counted(of_iam(iam, "name", PROJECT, unknown)) == {}
    assert unknown == {
        "address": "ec2:DescribeAddresses", "instance profile": "iam:GetInstanceProfile", "role": "iam:GetRole",
    }  # fmt: skip


def test_other_errors_are_not_taken_for_nothing() -> None:
    """An empty result would be called a success."""
    iam = boto3.client("iam")
    with Stubber(iam) as stubber:
        stubber.add_client_error("get_instance_profile", "ServiceFailure")
        with pytest.raises(iam.exceptions.ClientError):
            of_iam(iam, "name", PROJECT, {})


def refuse(**_: object) -> None:
    """Refuse a call as IAM does."""
    raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": "no"}}, "DescribeAddresses")


def record(client: Any, zone: str, name: str) -> None:
    """Make a DNS record."""
    change = {
        "Action": "CREATE",
        "ResourceRecordSet": {
            "Name": name, "Type": "A", "TTL": 300, "ResourceRecords": [{"Value": "192.0.2.1"}],
        },
    }  # fmt: skip
    client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [change]})


def test_dns_record_is_found_by_its_name() -> None:
    """Route 53 answers with the next record when there is none of that name."""
    client = boto3.client("route53")
    zone = client.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
    record(client, zone, "zzz.example.com")
    assert counted(of_dns(client, "example.com", "www.example.com", {})) == {}
    record(client, zone, "www.example.com")
    (one,) = of_dns(client, "example.com", "www.example.com", {})["DNS record"]
    assert (one["id"], one["about"]) == ("www.example.com.", "A 192.0.2.1")
    assert counted(of_dns(client, "", "", {})) == {}
    assert counted(of_dns(client, "example.org", "www.example.org", {})) == {}


def test_waiting_ends_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS shows removed things for some more seconds; things that are not waited for do not matter."""
    monkeypatch.setattr(tagged_resources_info, "POLL_S", 0)
    thing = {"id": "x", "about": "", "raw": {}}
    answers: Iterator[Resources] = iter([{"a": [thing], "b": [thing]}, {"a": [], "b": [thing]}])
    assert when_gone(lambda: next(answers), ["a"], 60) == {"a": [], "b": [thing]}
    assert when_gone(lambda: {"a": [thing]}, ["a"], 0) == {"a": [thing]}
