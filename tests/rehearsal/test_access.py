"""The policy of docs/iam.md is enforced by action, resource and condition, and refuses in AWS's words."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from rehearsal.errors import RehearsalError
from rehearsal.faults import Faults
from rehearsal.front import Front, Recorder
from rehearsal.policy import Ask, Policy
from tests import iam
from tests.rehearsal.paper import KEY

REGION = "eu-central-1"
USER = "User: arn:aws:iam::000000000000:user/rehearsal is not authorized to perform:"
EC2 = f"arn:aws:ec2:{REGION}:000000000000"
Client = Callable[..., Any]


def tagged(*kinds: str, project: str = "flask-fleet") -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": "Project", "Value": project}]} for kind in kinds]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    policy = Policy(iam.read_policy())
    moto = DomainDispatcherApplication(create_backend_app)
    recorder = Recorder(tmp_path_factory.mktemp("api") / "calls.jsonl")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", 0, Front(moto, lambda _: None, Faults(), recorder, lambda: policy), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
        # What an earlier test left of IAM has no managed policies.
        moto_api_backend.reset()
        yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    moto_api_backend.reset()


@pytest.fixture(scope="module")
def root(endpoint: str) -> Client:
    return lambda service: client(endpoint, service, "root")


@pytest.fixture(scope="module")
def user(endpoint: str) -> Client:
    return lambda service: client(endpoint, service, "rehearsal")


def client(endpoint: str, service: str, key: str) -> Any:
    once = Config(retries={"total_max_attempts": 1})
    credentials = {"aws_access_key_id": key, "aws_secret_access_key": "x"}
    return boto3.client(service, region_name=REGION, endpoint_url=endpoint, config=once, **credentials)


def refused(call: Client, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


def no(action: str, resource: str) -> str:
    """Return EC2's message."""
    said = f"UnauthorizedOperation: You are not authorized to perform this operation. {USER} {action} on resource: "
    return f"{said}{resource} because no identity-based policy allows the {action} action"


@pytest.fixture(scope="module")
def launch(root: Client) -> dict[str, Any]:
    root("ec2").import_key_pair(KeyName="key", PublicKeyMaterial=KEY)
    kinds = tagged("instance", "volume")
    request = {"InstanceType": "t2.micro", "KeyName": "key", "MinCount": 1, "MaxCount": 1, "TagSpecifications": kinds}
    return request | {"ImageId": root("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"]}


def test_what_is_made_must_carry_the_tag(user: Client, launch: dict[str, Any]) -> None:
    ec2 = user("ec2")
    ec2.run_instances(**launch)
    only_instance = launch | {"TagSpecifications": tagged("instance")}
    assert refused(ec2.run_instances, **only_instance) == no("ec2:RunInstances", f"{EC2}:volume/*")
    theirs = launch | {"TagSpecifications": tagged("instance", "volume", project="theirs")}
    assert refused(ec2.run_instances, **theirs) == no("ec2:RunInstances", f"{EC2}:instance/*")
    address = {"Domain": "vpc", "TagSpecifications": tagged("elastic-ip")}
    assert ec2.allocate_address(**address)["AllocationId"]
    assert refused(ec2.allocate_address, Domain="vpc") == no("ec2:AllocateAddress", f"{EC2}:elastic-ip/*")


def test_what_others_own_is_neither_changed_nor_tagged(user: Client, root: Client, launch: dict[str, Any]) -> None:
    untagged = {key: value for key, value in launch.items() if key != "TagSpecifications"}
    theirs = root("ec2").run_instances(**untagged)["Instances"][0]["InstanceId"]
    ours = user("ec2").run_instances(**launch)["Instances"][0]["InstanceId"]
    for name, call, more in (
        ("StopInstances", user("ec2").stop_instances, {"InstanceIds": [ours, theirs]}),
        ("CreateTags", user("ec2").create_tags, {"Resources": [theirs], "Tags": tagged("x")[0]["Tags"]}),
        ("GetConsoleOutput", user("ec2").get_console_output, {"InstanceId": theirs}),
    ):
        assert refused(call, **more) == no(f"ec2:{name}", f"{EC2}:instance/{theirs}")
    user("ec2").create_tags(Resources=[ours], Tags=[{"Key": "Name", "Value": "ours"}])
    user("ec2").stop_instances(InstanceIds=[ours])


def test_addresses_and_profiles_are_found_behind_their_associations(
    user: Client, root: Client, launch: dict[str, Any]
) -> None:
    """The calls that undo an association name only the association and no resource."""
    instance = user("ec2").run_instances(**launch)["Instances"][0]["InstanceId"]
    ours = user("ec2").allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))
    associated = user("ec2").associate_address(InstanceId=instance, AllocationId=ours["AllocationId"])
    user("ec2").disassociate_address(AssociationId=associated["AssociationId"])
    theirs = root("ec2").allocate_address(Domain="vpc")
    associated = root("ec2").associate_address(InstanceId=instance, AllocationId=theirs["AllocationId"])
    said = refused(user("ec2").disassociate_address, AssociationId=associated["AssociationId"])
    assert said == no("ec2:DisassociateAddress", f"{EC2}:elastic-ip/{theirs['AllocationId']}")
    root("iam").create_instance_profile(InstanceProfileName="empty")
    profile = {"IamInstanceProfile": {"Name": "empty"}, "InstanceId": instance}
    associated = root("ec2").associate_iam_instance_profile(**profile)["IamInstanceProfileAssociation"]
    user("ec2").disassociate_iam_instance_profile(AssociationId=associated["AssociationId"])


def test_only_the_projects_role_is_passed_and_only_the_named_policy_attached(
    user: Client, root: Client, launch: dict[str, Any]
) -> None:
    """Whoever could pass any role to an instance would have its rights."""
    for name in ("admin", "flask-fleet-app"):
        root("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        root("iam").create_instance_profile(InstanceProfileName=name)
        root("iam").add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    with_role = launch | {"IamInstanceProfile": {"Name": "admin"}}
    role = "arn:aws:iam::000000000000:role/admin"
    assert refused(user("ec2").run_instances, **with_role) == no("iam:PassRole", role)
    user("ec2").run_instances(**launch | {"IamInstanceProfile": {"Name": "flask-fleet-app"}})
    iam_call = user("iam")
    assert refused(iam_call.get_role, RoleName="admin") == (
        f"AccessDenied: {USER} iam:GetRole on resource: role admin because no identity-based policy allows the "
        "iam:GetRole action"
    )
    attached = {"RoleName": "flask-fleet-app", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}
    assert "iam:AttachRolePolicy on resource: role flask-fleet-app" in refused(iam_call.attach_role_policy, **attached)
    (attaching,) = (one for one in iam.read_policy()["Statement"] if one["Sid"] == "AttachPolicies")
    (named,) = attaching["Condition"]["ArnEquals"]["iam:PolicyARN"]
    iam_call.attach_role_policy(RoleName="flask-fleet-app", PolicyArn=named)


def test_other_services_refuse_in_their_own_format(user: Client) -> None:
    said = refused(user("service-quotas").list_aws_default_service_quotas, ServiceCode="ec2")
    assert said == (
        f"AccessDeniedException: {USER} servicequotas:ListAWSDefaultServiceQuotas because no identity-based policy "
        "allows the servicequotas:ListAWSDefaultServiceQuotas action"
    )
    assert refused(user("route53").create_hosted_zone, Name="a.example", CallerReference="1").startswith(
        f"AccessDenied: {USER} route53:CreateHostedZone because"
    )
    user("route53").list_hosted_zones()
    assert user("sts").get_caller_identity()["Account"]


def statement(**more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "ec2:Stop*", "Resource": "arn:aws:ec2:*:*:instance/*"} | more


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([statement()], True),
        ([], False),
        ([statement(Action="ec2:start*")], False),
        ([statement(Action=["EC2:stopinstances"])], True),
        ([statement(Resource="arn:aws:ec2:*:*:volume/*")], False),
        ([statement(), statement(Effect="Deny")], False),
        ([statement(Condition={"StringEquals": {"aws:ResourceTag/A": ["a", "b"], "aws:ResourceTag/C": "c"}})], True),
        ([statement(Condition={"StringEquals": {"aws:ResourceTag/A": "a", "aws:ResourceTag/D": "d"}})], False),
        ([statement(Condition={"StringLike": {"aws:ResourceTag/A": "?"}, "ArnLike": {"x": "*"}})], False),
    ],
)
def test_statements_are_evaluated_as_by_iam(statements: list[dict[str, Any]], allowed: bool) -> None:
    tags = {"aws:ResourceTag/A": "a", "aws:ResourceTag/C": "c"}
    asked = Ask("ec2:StopInstances", f"{EC2}:instance/i-1", tags)
    assert Policy({"Statement": statements}).allows(asked) is allowed


@pytest.mark.parametrize("more", [{"Condition": {"IpAddress": {}}}, {"NotAction": "x"}, {"Effect": "allow"}])
def test_policy_that_cannot_be_evaluated_is_refused(more: dict[str, Any]) -> None:
    """A condition that is ignored would allow too much."""
    with pytest.raises(RehearsalError, match="cannot evaluate"):
        Policy({"Statement": [statement(**more)]})
