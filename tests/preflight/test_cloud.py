"""What AWS is asked before anything is made."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from moto import mock_aws

from preflight import cloud
from tests.preflight.input import IMAGE, REGION, free_port, service, stack


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer as AWS, without a network."""
    monkeypatch.setenv("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws():
        yield


def problems(**changes: Any) -> list[str]:
    """Check everything."""
    return list(cloud.ec2_problems(stack(**changes)))


def launch(instance_type: str = "t2.micro", count: int = 1, key: str = "", **tags: str) -> list[str]:
    """Start instances."""
    more: dict[str, Any] = {"KeyName": key} if key else {}
    if tags:
        listed = [{"Key": name, "Value": value} for name, value in tags.items()]
        more["TagSpecifications"] = [{"ResourceType": "instance", "Tags": listed}]
    client = boto3.client("ec2", region_name=REGION)
    made = client.run_instances(ImageId=IMAGE, InstanceType=instance_type, MinCount=count, MaxCount=count, **more)
    return [one["InstanceId"] for one in made["Instances"]]


def vcpu_problems(quota: int, **changes: Any) -> list[str]:
    """Check an account that may run so many vCPUs."""
    quotas = boto3.client("service-quotas", region_name=REGION)
    with Stubber(quotas) as stubber:
        asked = {"ServiceCode": "ec2", "QuotaCode": cloud.VCPU_QUOTA}
        stubber.add_response("get_service_quota", {"Quota": {"Value": float(quota)}}, asked)
        return list(cloud.vcpu_problems(cloud.Cloud(stack(**changes)), quotas))


@pytest.mark.usefixtures("aws")
def test_account_in_order_is_allowed() -> None:
    """Nothing runs yet, nothing is missing."""
    assert problems() == []


@pytest.mark.usefixtures("aws")
def test_unknown_instance_type_is_refused() -> None:
    """RunInstances would refuse it too, but after key pair and security group exist."""
    (problem,) = problems(ec2_instance_type="t2.mikro")
    assert problem.startswith(f"ec2_instance_type is 't2.mikro': {REGION} has no such type; allowed are for example ")
    assert {"t2.micro", "t2.medium"} <= set(problem.split("for example ")[1].split(", "))


@pytest.mark.usefixtures("aws")
def test_instance_type_has_to_hold_the_services() -> None:
    """What a t2.micro cannot hold a t2.medium can."""
    large = [service(replicas=7)]
    (problem,) = problems(stack_services=large)
    assert "7 x 128m of app are 960 MiB, but a t2.micro has 1024 MiB, of which the system needs 192" in problem
    assert problems(stack_services=large, ec2_instance_type="t2.medium") == []


@pytest.mark.usefixtures("aws")
def test_instance_type_has_to_have_the_cpus() -> None:
    """The engine refuses such a limit, after everything else is done."""
    greedy = [service(cpus="1.5")]
    assert problems(stack_services=greedy) == [
        "stack_services[0] (app): cpus is 1.5, but a t2.micro has 1 vCPU: allowed is at most 1, or a larger machine"
    ]
    assert problems(stack_services=greedy, ec2_instance_type="t2.medium") == []


@pytest.mark.usefixtures("aws")
def test_unknown_zone_is_refused() -> None:
    """The subnet of a zone that does not exist cannot be made; the others would be."""
    assert problems(ec2_zones=["eu-central-1a", "eu-central-1x"]) == [
        (
            f"ec2_zones is ['eu-central-1a', 'eu-central-1x']: {REGION} has no zone eu-central-1x; "
            "allowed are eu-central-1a, eu-central-1b, eu-central-1c"
        )
    ]


def test_type_has_to_be_offered_in_the_zones() -> None:
    """AWS offers t2 in old zones only; an empty list means the first zones of the region."""
    checked = cloud.Cloud(stack(ec2_count="2"))
    zones = [{"ZoneName": f"{REGION}{letter}"} for letter in "cab"]
    offered = [{"Location": f"{REGION}{letter}"} for letter in "ca"]
    with Stubber(checked.ec2) as stubber:
        for _ in range(2):
            stubber.add_response("describe_availability_zones", {"AvailabilityZones": zones})
            stubber.add_response("describe_instance_type_offerings", {"InstanceTypeOfferings": offered})
        assert list(cloud.zone_problems(checked)) == [
            (
                "ec2_zones is [], which means eu-central-1a, eu-central-1b: t2.micro (ec2_instance_type) is not "
                "offered in eu-central-1b; allowed are eu-central-1a, eu-central-1c"
            )
        ]
        checked.variables = stack(ec2_zones="eu-central-1a, eu-central-1c")
        assert list(cloud.zone_problems(checked)) == []


@pytest.mark.usefixtures("aws")
def test_too_many_vcpus_are_refused() -> None:
    """New accounts may run five; AWS refuses the rest when some already exist."""
    launch("t2.medium", 2)
    launch("t2.micro", 4, Project="flask-fleet", Role="app")
    assert vcpu_problems(8, ec2_count=2, ec2_instance_type="t2.medium") == []
    assert vcpu_problems(7, ec2_count=2, ec2_instance_type="t2.medium") == [
        (
            "ec2_count is 2 and ec2_instance_type is 't2.medium': that is 4 vCPUs beside 4 of other instances, but the "
            "account may run 7 in eu-central-1 (quota L-1216C47A); allowed is a count up to 1, or a higher quota: AWS "
            "raises it on request"
        )
    ]


@pytest.mark.usefixtures("aws")
def test_other_families_have_other_quotas() -> None:
    """A quota of standard vCPUs says nothing of GPUs."""
    launch("g4dn.xlarge")
    assert vcpu_problems(1) == []
    quotas = boto3.client("service-quotas", region_name=REGION)
    with Stubber(quotas):
        assert list(cloud.vcpu_problems(cloud.Cloud(stack(ec2_instance_type="g4dn.xlarge")), quotas)) == []


@pytest.mark.parametrize(("name", "standard"), [("t2.micro", True), ("i4i.large", True), ("im4gn.large", True)])
def test_standard_families(name: str, standard: bool) -> None:
    """Families of two letters are others, but for storage."""
    assert bool(cloud.STANDARD_FAMILIES.match(name)) is standard


@pytest.mark.parametrize("name", ["inf1.xlarge", "trn1.2xlarge", "hpc6a.48xlarge", "mac1.metal", "g4dn.xlarge", "p4d"])
def test_other_families(name: str) -> None:
    """Each of these counts against a quota of its own."""
    assert not cloud.STANDARD_FAMILIES.match(name)


@pytest.mark.usefixtures("aws")
def test_region_without_default_vpc_is_refused() -> None:
    """People delete it, and organisations do."""
    client = boto3.client("ec2", region_name=REGION)
    (vpc,) = client.describe_vpcs()["Vpcs"]
    for subnet in client.describe_subnets()["Subnets"]:
        client.delete_subnet(SubnetId=subnet["SubnetId"])
    client.delete_vpc(VpcId=vpc["VpcId"])
    (problem,) = problems()
    assert problem.startswith(
        "ec2_vpc_cidr is empty, but eu-central-1 has no default VPC: allowed is a block for a VPC"
    )
    assert problems(ec2_vpc_cidr="10.20.0.0/16") == []


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Write a private key, and import its public half as AWS is given it."""
    made = Ed25519PrivateKey.generate()
    file = tmp_path / "key"
    file.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" flask-fleet"
    boto3.client("ec2", region_name=REGION).import_key_pair(KeyName="pair", PublicKeyMaterial=public)
    return file


@pytest.mark.usefixtures("aws")
def test_key_that_opens_the_instances_is_allowed(key: Path) -> None:
    """And before there are instances none is needed: the role makes it."""
    assert problems(ec2_private_key_file=str(key.parent / "none")) == []
    launch(key="pair", Project="flask-fleet", Role="app")
    assert problems(ec2_private_key_file=str(key)) == []


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("why", ["there is no such file", "it is another key", "it is no readable private key"])
def test_key_whose_private_half_is_missing_is_refused(key: Path, why: str) -> None:
    """A new key would be made, and nobody could log in to what runs; five minutes later Ansible would say so."""
    (instance,) = launch(key="pair", Project="flask-fleet", Role="app")
    match why:
        case "there is no such file":
            key.unlink()
        case "it is another key":
            other = Ed25519PrivateKey.generate()
            key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        case _:
            key.write_text("no key")
    assert problems(ec2_private_key_file=str(key)) == [
        (
            f"ec2_private_key_file is {str(key)!r}: {why}, but {instance} can be opened only with the private half of "
            "the key pair pair: allowed is the file that has it, or to begin anew after playbooks/destroy.yml"
        )
    ]


@pytest.mark.usefixtures("aws")
def test_instances_of_others_may_have_other_keys(key: Path) -> None:
    """Only what the project counts as its own has to be opened."""
    launch(key="pair", Project="another", Role="app")
    launch(key="pair")
    key.unlink()
    assert problems(ec2_private_key_file=str(key)) == []


@pytest.mark.usefixtures("aws")
def test_missing_zone_of_names_is_refused() -> None:
    """The instances would exist before Route 53 says so."""
    boto3.client("route53").create_hosted_zone(Name="example.org.", CallerReference="1")
    assert problems(ec2_dns_zone="example.org", ec2_dns_name="www.example.org") == []
    assert problems(ec2_dns_zone="example.org.") == []
    assert problems(ec2_dns_zone="example.com") == [
        "ec2_dns_zone is 'example.com': this account has no such hosted zone in Route 53; allowed are example.org"
    ]
    assert problems(ec2_dns_zone="example.org", ec2_dns_name="www.example.com") == [
        "ec2_dns_name is 'www.example.com': allowed is a name in ec2_dns_zone, such as www.example.org"
    ]


def test_missing_permission_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing permission must not be reported as a misspelt type, and the next check may have its own."""
    checked = cloud.Cloud(stack())
    monkeypatch.setattr(cloud, "Cloud", lambda _: checked)
    with Stubber(checked.ec2) as stubber:
        stubber.add_client_error("describe_instance_types", "UnauthorizedOperation")
        stubber.add_client_error("describe_vpcs", "InternalError", "out of order")
        stubber.add_client_error("describe_instances", "UnauthorizedOperation")
        assert problems() == [
            (
                "These credentials may not call DescribeInstanceTypes in eu-central-1: "
                "docs/iam.md has a policy with all that is needed"
            ),
            (
                "AWS in eu-central-1 does not answer as it should: An error occurred (InternalError) when calling the "
                "DescribeVpcs operation: out of order"
            ),
            (
                "These credentials may not call DescribeInstances in eu-central-1: "
                "docs/iam.md has a policy with all that is needed"
            ),
        ]


def test_silent_aws_is_one_sentence_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal may have been stopped between the inventory and the play."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (problem,) = problems()
    assert problem.startswith(f"AWS in {REGION} does not answer as it should: ")
    assert endpoint in problem
