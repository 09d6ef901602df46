"""What EC2 is asked before anything is made."""

from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from preflight import cloud
from tests.preflight.input import REGION, free_port, service, stack


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer as EC2, without a network."""
    monkeypatch.setenv("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws():
        yield


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(("instance_type", "size"), [("t2.micro", (1, 1024)), ("t2.medium", (2, 4096))])
def test_size_of_an_instance_type_is_asked_from_ec2(instance_type: str, size: tuple[int, int]) -> None:
    """A table of our own would be out of date with the next type."""
    client = boto3.client("ec2", region_name=REGION)
    assert cloud.instance_size(client, instance_type) == size


@pytest.mark.usefixtures("aws")
def test_unknown_instance_type_is_refused() -> None:
    """RunInstances would refuse it too, but after key pair and security group exist."""
    (problem,) = cloud.ec2_problems(stack(ec2_instance_type="t2.mikro"))
    assert problem.startswith(f"ec2_instance_type is 't2.mikro': {REGION} has no such type; allowed are for example ")
    assert {"t2.micro", "t2.medium"} <= set(problem.split("for example ")[1].split(", "))


@pytest.mark.usefixtures("aws")
def test_instance_type_has_to_hold_the_services() -> None:
    """What a t2.micro cannot hold a t2.medium can."""
    large = [service(replicas=7)]
    (problem,) = cloud.ec2_problems(stack(stack_services=large))
    assert "7 x 128m of app are 960 MiB, but a t2.micro has 1024 MiB, of which the system needs 192" in problem
    assert list(cloud.ec2_problems(stack(stack_services=large, ec2_instance_type="t2.medium"))) == []


@pytest.mark.usefixtures("aws")
def test_instance_type_has_to_have_the_cpus() -> None:
    """The engine refuses such a limit, after everything else is done."""
    greedy = [service(cpus="1.5")]
    assert list(cloud.ec2_problems(stack(stack_services=greedy))) == [
        "stack_services[0] (app): cpus is 1.5, but a t2.micro has 1 vCPU: allowed is at most 1, or a larger machine"
    ]
    assert list(cloud.ec2_problems(stack(stack_services=greedy, ec2_instance_type="t2.medium"))) == []


def test_other_refusal_of_ec2_is_no_wrong_type() -> None:
    """A missing permission must not be reported as a misspelt type."""
    client = boto3.client("ec2", region_name=REGION)
    with Stubber(client) as stubber:
        stubber.add_client_error("describe_instance_types", "UnauthorizedOperation")
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            cloud.instance_size(client, "t2.micro")


def test_silent_ec2_is_a_sentence_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal may have been stopped between the inventory and the play."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (problem,) = cloud.ec2_problems(stack())
    assert problem.startswith(f"EC2 in {REGION} does not answer as it should: ")
    assert endpoint in problem
