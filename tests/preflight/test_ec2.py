"""What preflight asks AWS before anything is made."""

from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from preflight.ec2 import ec2_problems
from tests.preflight.cloud import PAID, cloud, launch, plan, problems
from tests.preflight.input import REGION, free_port


@pytest.mark.usefixtures("aws")
def test_account_in_order_is_allowed() -> None:
    assert problems() == []
    assert problems(ec2_instance_type="t3.micro") == []


@pytest.mark.usefixtures("aws")
def test_region_without_default_vpc_is_refused() -> None:
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
    """Write a private key, and import its public half in the form that AWS gets."""
    made = Ed25519PrivateKey.generate()
    file = tmp_path / "key"
    file.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" flask-fleet"
    boto3.client("ec2", region_name=REGION).import_key_pair(KeyName="pair", PublicKeyMaterial=public)
    return file


@pytest.mark.usefixtures("aws")
def test_key_that_opens_the_instances_is_allowed(key: Path) -> None:
    assert problems(ec2_private_key_file=str(key.parent / "none")) == []
    launch(key="pair", Project="flask-fleet", Role="app")
    assert problems(ec2_private_key_file=str(key)) == []


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("why", ["there is no such file", "it is another key", "it is no readable private key"])
def test_key_whose_private_half_is_missing_is_refused(key: Path, why: str) -> None:
    """The role would make a new key, with which nobody can log in to what runs; Ansible says so five minutes later."""
    (instance,) = launch(key="pair", Project="flask-fleet", Role="app")
    match why:
        case "there is no such file":
            key.unlink()
        case "it is another key":
            other = Ed25519PrivateKey.generate()
            key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        case _:
            key.write_text("no key")
    (problem,) = problems(ec2_private_key_file=str(key))
    assert problem == (
        f"ec2_private_key_file is {str(key)!r}: {why}, but {instance} can be opened only with the private half of "
        "the key pair pair: allowed is the file that has it, or to begin anew after playbooks/destroy.yml"
    )


@pytest.mark.usefixtures("aws")
def test_instances_of_others_may_have_other_keys(key: Path) -> None:
    launch(key="pair", Project="another", Role="app")
    launch(key="pair")
    key.unlink()
    assert problems(ec2_private_key_file=str(key)) == []


@pytest.mark.usefixtures("aws")
def test_missing_zone_of_names_is_refused() -> None:
    boto3.client("route53").create_hosted_zone(Name="example.org.", CallerReference="1")
    assert problems(ec2_dns_zone="example.org", ec2_dns_name="www.example.org") == []
    assert problems(ec2_dns_zone="example.org.") == []
    said = "ec2_dns_zone is 'example.com': this account has no such hosted zone in Route 53; allowed are example.org"
    assert problems(ec2_dns_zone="example.com") == [said]
    said = "ec2_dns_name is 'www.example.com': allowed is a name in ec2_dns_zone, such as www.example.org"
    assert problems(ec2_dns_zone="example.org", ec2_dns_name="www.example.com") == [said]


@pytest.mark.usefixtures("aws")
def test_missing_permission_is_named_once() -> None:
    """It must not be reported as a misspelt type, and the next check may lack another permission."""
    checked = cloud()
    with plan(checked, PAID), Stubber(checked.ec2) as stubber:
        # By the checks of the type, the plan, the image and the vCPUs.
        for _ in range(4):
            stubber.add_client_error("describe_instance_types", "UnauthorizedOperation")
        stubber.add_client_error("describe_addresses", "InternalError", "out of order")
        for operation in ("describe_vpcs", "describe_security_groups", "describe_instances"):
            stubber.add_client_error(operation, "UnauthorizedOperation")
        may_not = "These credentials may not call {} in eu-central-1: docs/iam.md has a policy with all that is needed"
        types, broken, *rest = ec2_problems(checked)
        assert [types, *rest] == [
            may_not.format(f"Describe{what}") for what in ("InstanceTypes", "Vpcs", "SecurityGroups", "Instances")
        ]
        assert broken.startswith("AWS in eu-central-1 does not answer as it should: An error occurred (InternalError)")
        assert broken.endswith("when calling the DescribeAddresses operation: out of order")


def test_silent_aws_is_one_sentence_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (problem,) = problems()
    assert problem.startswith(f"AWS in {REGION} does not answer as it should: ")
    assert endpoint in problem


@pytest.mark.usefixtures("aws")
def test_everything_is_asked_with_few_calls() -> None:
    """A run begins with these calls, and each takes about a tenth of a second."""
    checked = cloud(ec2_count=2)
    made: list[str] = []
    for service in ("ec2", "service-quotas"):
        checked.client(service).meta.events.register("before-call", lambda model, **_: made.append(model.name))
    with plan(checked, PAID):
        assert ec2_problems(checked) == []
    assert made.count("GetServiceQuota") == 3
    assert len(made) == len(set(made)) + 2, "each call is made once, but that of quotas for each of three"
    assert len(made) == 12
