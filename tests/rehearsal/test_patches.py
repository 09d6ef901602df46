"""The patched moto, asked through boto3; only the containers are missing."""

import json
import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.ec2.models.instances import Instance

from rehearsal import ACCOUNT_ID, patches
from rehearsal.adapter import guests, own_images
from rehearsal.errors import RehearsalError
from rehearsal.images import Disk
from rehearsal.instance import Machine
from rehearsal.metadata import Options, find
from rehearsal.pins import check_pins
from rehearsal.subjects import subject_at
from roles.ec2.library.instance_settings import apply
from tests.project import ROOT
from tests.rehearsal.paper import KEY, PaperFleet, describe, newest_ami, refused, run

AMD64 = {"Name": "architecture", "Values": ["x86_64"]}


def test_this_moto_is_the_one_that_was_patched() -> None:
    """After an update of moto this test is the first to look at."""
    check_pins()


def test_moved_name_in_moto_fails_loudly() -> None:
    with pytest.raises(RehearsalError, match=r"moto does not fit.*Instance\.began, Instance\.stop"):
        check_pins(((Instance, "began", ()), (Instance, "stop", ("force",)), (Instance, "start", ())))


def test_every_change_of_moto_is_listed_with_a_test(fleet: PaperFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: set[str] = set()
    monkeypatch.setattr(patches, "_replace", lambda owner, name, _: replaced.add(f"{owner.__name__}.{name}"))
    patches.install(fleet)
    page = (ROOT / "docs/rehearsal.md").read_text(encoding="utf-8").partition("## What is corrected in moto")[2]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    listed = {name for names, _, _ in rows for name in re.findall(r"`([\w.]+)`", names)}
    assert listed == replaced | {"EC2_PREFIX_TO_RESOURCE", "InstanceResponse.modify_instance_credit_specification"}
    written = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_*.py"))
    for names, behaviour, tests in rows:
        assert "](https://" in behaviour or "ours, not AWS's" in behaviour, names
        assert re.findall(r"`(\w+)`", tests), names
        assert [one for one in re.findall(r"`(\w+)`", tests) if f"def {one}(" not in written] == []


def test_account_is_recognisable(fleet: PaperFleet) -> None:
    assert fleet.machines == {}
    assert boto3.client("sts", region_name="eu-central-1").get_caller_identity()["Account"] == ACCOUNT_ID


def test_newest_image_depends_on_date_and_architecture(ec2: Any) -> None:
    """A search without the architecture must be able to find a wrong image here, too."""
    assert newest_ami(ec2, "x86_64") != newest_ami(ec2, "arm64")
    images = ec2.describe_images(Owners=["136693071363"], Filters=[AMD64])["Images"]
    assert len({image["CreationDate"] for image in images}) >= 2
    assert len({image["ImageId"] for image in images}) == len(images)


def test_addresses_are_the_containers_own(ec2: Any, fleet: PaperFleet) -> None:
    instance = describe(ec2, run(ec2, UserData="#!/bin/sh\necho ü\n"))
    assert instance["PrivateIpAddress"] == instance["PublicIpAddress"] == "10.99.0.4"
    machine = fleet.machines[instance["InstanceId"]]
    assert (machine.address, machine.keys, machine.user_data) == ("10.99.0.4", [KEY.decode()], "#!/bin/sh\necho ü\n")


def test_what_aws_refuses_at_launch_is_refused(ec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("InvalidInstanceType.NotFound", run, ec2=ec2, InstanceType="t9.huge")
    refused("InvalidKeyPair.NotFound", run, ec2=ec2, KeyName="nobody")
    refused("InvalidAMIID.NotFound", run, ec2=ec2, ImageId="ami-0fffffffffffffff0")
    refused("InvalidParameterValue", run, ec2=ec2, InstanceType="t4g.small")
    refused("Unsupported", run, ec2=ec2, InstanceType="t4g.small", ImageId=newest_ami(ec2, "arm64"))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert run(ec2, InstanceType="t4g.small", ImageId=newest_ami(ec2, "arm64"))["Architecture"] == "arm64"


def test_quota_of_vcpus_is_told_and_enforced(ec2: Any) -> None:
    quotas = boto3.client("service-quotas", region_name=ec2.meta.region_name)
    quota = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]
    half = int(quota["Value"]) // 4
    run(ec2, InstanceType="t2.medium", MinCount=half, MaxCount=half)
    run(ec2, InstanceType="g4dn.12xlarge")
    with pytest.raises(ClientError, match="VcpuLimitExceeded"):
        run(ec2, InstanceType="t2.medium", MinCount=half + 1, MaxCount=half + 1)
    run(ec2, InstanceType="t2.medium", MinCount=half, MaxCount=half)


def test_repeated_request_launches_once(ec2: Any) -> None:
    first, again, other = (run(ec2, ClientToken=token) for token in ("a", "a", "b"))
    assert first["InstanceId"] == again["InstanceId"] != other["InstanceId"]


def test_type_changes_only_while_stopped(ec2: Any) -> None:
    instance = run(ec2)
    key, change = instance["InstanceId"], {"InstanceType": {"Value": "t2.medium"}}
    refused("IncorrectInstanceState", ec2.modify_instance_attribute, InstanceId=key, **change)
    ec2.stop_instances(InstanceIds=[key])
    unknown = {"InstanceType": {"Value": "t9.huge"}}
    refused("InvalidInstanceAttributeValue", ec2.modify_instance_attribute, InstanceId=key, **unknown)
    ec2.modify_instance_attribute(InstanceId=key, **change)
    ec2.start_instances(InstanceIds=[key])
    after = describe(ec2, instance)
    assert (after["InstanceType"], after["PrivateIpAddress"]) == ("t2.medium", instance["PrivateIpAddress"])


def test_orders_need_the_right_state(ec2: Any) -> None:
    instance = run(ec2)
    key = {"InstanceIds": [instance["InstanceId"]]}
    ec2.start_instances(**key)
    ec2.stop_instances(**key)
    ec2.stop_instances(**key)
    refused("IncorrectInstanceState", ec2.reboot_instances, **key)
    ec2.terminate_instances(**key)
    ec2.terminate_instances(**key)
    refused("IncorrectInstanceState", ec2.start_instances, **key)
    assert describe(ec2, instance)["State"] == {"Code": 48, "Name": "terminated"}


def test_elastic_ip_follows_its_instance(ec2: Any, fleet: PaperFleet) -> None:
    one, two = run(ec2), run(ec2)
    tags = {"ResourceType": "elastic-ip", "Tags": [{"Key": "Project", "Value": "x"}]}
    allocated = ec2.allocate_address(Domain="standard", TagSpecifications=[tags])
    assert allocated["PublicIp"] == "10.99.255.1"
    associate = {"AllocationId": allocated["AllocationId"], "AllowReassociation": True}
    ec2.associate_address(InstanceId=one["InstanceId"], **associate)
    ec2.stop_instances(InstanceIds=[one["InstanceId"]])
    assert describe(ec2, one)["PublicIpAddress"] == "10.99.255.1"
    assert guests()[0].addresses == ("10.99.0.4", "10.99.255.1")
    ec2.start_instances(InstanceIds=[one["InstanceId"]])
    ec2.associate_address(InstanceId=two["InstanceId"], **associate)
    assert [describe(ec2, each)["PublicIpAddress"] for each in (one, two)] == ["10.99.0.4", "10.99.255.1"]
    assert [fleet.machines[each["InstanceId"]].extra_addresses for each in (one, two)] == [set(), {"10.99.255.1"}]
    ec2.terminate_instances(InstanceIds=[two["InstanceId"]])
    refused("InvalidInstanceID", ec2.associate_address, InstanceId=two["InstanceId"], **associate)
    assert "AssociationId" not in ec2.describe_addresses()["Addresses"][0]


def test_tags_of_an_elastic_ip_are_found(ec2: Any) -> None:
    """Otherwise amazon.aws.ec2_eip reports a change in every run."""
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    ec2.create_tags(Resources=[address], Tags=[{"Key": "Project", "Value": "x"}])
    found = ec2.describe_tags(Filters=[{"Name": "resource-type", "Values": ["elastic-ip"]}])["Tags"]
    assert [tag["ResourceId"] for tag in found] == [address]


def test_a_vpc_outside_the_network_is_refused_with_one_that_works(ec2: Any) -> None:
    with pytest.raises(ClientError, match=r"InvalidVpcRange.*rehearsal's network 10\.99\.0\.0/16.*10\.99\.128\.0/20"):
        ec2.create_vpc(CidrBlock="172.30.0.0/16")
    refused("InvalidParameterValue", ec2.create_vpc, CidrBlock="nonsense")
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/20")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.99.0.0/24", AvailabilityZone="eu-central-1a")["Subnet"]
    first = describe(ec2, run(ec2))
    assert (first["PrivateIpAddress"], first["VpcId"] != vpc) == ("10.99.0.4", True)
    assert describe(ec2, run(ec2, SubnetId=subnet["SubnetId"]))["PrivateIpAddress"] == "10.99.0.5"


def test_no_instance_takes_an_elastic_ip(ec2: Any) -> None:
    """A subnet may include the last block of the network, if somebody makes one there."""
    vpc = ec2.create_vpc(CidrBlock="10.99.255.0/24")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.99.255.0/28")["Subnet"]["SubnetId"]
    refused("InsufficientFreeAddressesInSubnet", run, ec2=ec2, SubnetId=subnet)


def test_credit_mode_is_kept(ec2: Any) -> None:
    small, larger = (run(ec2, InstanceType=size)["InstanceId"] for size in ("t2.micro", "t3.micro"))

    def modes() -> list[str]:
        answer = ec2.describe_instance_credit_specifications(InstanceIds=[small, larger])
        return [one["CpuCredits"] for one in answer["InstanceCreditSpecifications"]]

    assert modes() == ["standard", "unlimited"]
    wish = {"InstanceId": small, "CpuCredits": "unlimited"}
    answer = ec2.modify_instance_credit_specification(InstanceCreditSpecifications=[wish])
    assert answer["SuccessfulInstanceCreditSpecifications"] == [{"InstanceId": small}]
    assert modes() == ["unlimited", "unlimited"]


def test_detailed_monitoring_is_switched(ec2: Any) -> None:
    instance = run(ec2)
    for call, state in ((ec2.monitor_instances, "enabled"), (ec2.unmonitor_instances, "disabled")):
        (answer,) = call(InstanceIds=[instance["InstanceId"]])["InstanceMonitorings"]
        assert answer["Monitoring"]["State"] == describe(ec2, instance)["Monitoring"]["State"] == state


def test_module_sets_what_amazon_aws_leaves_as_it_was_at_launch(ec2: Any) -> None:
    boto3.client("iam", region_name="eu-central-1").create_instance_profile(InstanceProfileName="profile")
    types = ("t2.micro", "m5.large")
    launched = [run(ec2, InstanceType=one, IamInstanceProfile={"Name": "profile"}) for one in types]
    small, large = ids = [one["InstanceId"] for one in launched]
    wanted = {"instance_ids": ids, "credits": "unlimited", "detailed_monitoring": True, "keep_profile": False}
    profile = describe(ec2, launched[0])["IamInstanceProfile"]["Arn"]
    expected = [
        f"{small}: credits: standard -> unlimited",
        *(f"{one}: detailed monitoring: disabled -> enabled" for one in ids),
        *(f"{one}: instance profile: {profile} -> " for one in ids),
    ]
    assert apply(ec2, wanted, check=True)["changes"] == expected
    result = apply(ec2, wanted, check=False)
    assert (result["changed"], result["changes"]) == (True, expected)
    assert result["diff"]["before"].count("\n") == len(expected)
    assert "IamInstanceProfile" not in describe(ec2, launched[1])
    assert apply(ec2, wanted, check=False)["changes"] == []
    back = wanted | {"instance_ids": [large], "detailed_monitoring": False, "keep_profile": True}
    assert apply(ec2, back, check=False)["changes"] == [f"{large}: detailed monitoring: enabled -> disabled"]


def test_console_output_is_the_containers(ec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "console", lambda _: "Reached target multi-user.target")
    output = ec2.get_console_output(InstanceId=run(ec2)["InstanceId"])["Output"]
    assert output == "Reached target multi-user.target"


def filtered() -> list[list[tuple[int | None, tuple[str, ...]]]]:
    return [[(rule.first, rule.peers) for rule in guest.ingress] for guest in guests()]


def test_groups_of_instances_reach_the_packet_filter(ec2: Any) -> None:
    web = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    empty = ec2.create_security_group(GroupName="empty", Description="empty")["GroupId"]
    for port, peer in (
        (80, {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}),
        (81, {"UserIdGroupPairs": [{"GroupId": web}]}),
        (82, {"UserIdGroupPairs": [{"GroupId": empty}]}),
    ):
        permission = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **peer}
        ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[permission])
    one = run(ec2, SecurityGroupIds=[web])["InstanceId"]
    assert [group["GroupName"] for group in describe(ec2, run(ec2))["SecurityGroups"]] == ["default"]
    everybody, members = ("0.0.0.0/0",), ("10.99.0.4/32",)
    assert filtered() == [[(80, everybody), (81, members), (82, ())], [(None, ("10.99.0.5/32",))]]
    ec2.modify_instance_attribute(InstanceId=one, Groups=[empty])
    assert filtered()[0] == []
    interface = ec2.describe_instances(InstanceIds=[one])["Reservations"][0]["Instances"][0]["NetworkInterfaces"][0]
    assert [group["GroupId"] for group in interface["Groups"]] == [empty]
    ec2.modify_network_interface_attribute(NetworkInterfaceId=interface["NetworkInterfaceId"], Groups=[web])
    assert len(filtered()[0]) == 3
    ec2.terminate_instances(InstanceIds=[one])
    assert len(filtered()) == 1


def test_metadata_follows_the_api(ec2: Any) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "me"}]}]
    options = {"HttpTokens": "required", "InstanceMetadataTags": "enabled"}
    instance = run(ec2, MetadataOptions=options, TagSpecifications=tags)["InstanceId"]
    ec2.modify_instance_metadata_options(InstanceId=instance, HttpPutResponseHopLimit=2)
    me = subject_at({}, "10.99.0.4")
    assert me is not None
    assert (me.instance_id, me.options) == (instance, Options(tokens_required=True, hops=2))
    assert find(me.tree, "meta-data/tags/instance/Name") == "me"
    assert find(me.tree, "meta-data/public-keys") == "0=me"
    assert find(me.tree, "meta-data/security-groups") == "default"
    assert find(me.tree, "user-data") is None
    assert json.loads(find(me.tree, "dynamic/instance-identity/document") or "")["instanceId"] == instance
    ec2.modify_instance_metadata_options(InstanceId=instance, InstanceMetadataTags="disabled")
    after = subject_at({}, "10.99.0.4")
    assert after is not None
    assert find(after.tree, "meta-data/tags") is None
    assert subject_at({}, "10.99.0.9") is None


def test_role_of_an_instance_is_in_its_metadata(ec2: Any) -> None:
    iam = boto3.client("iam", region_name="eu-central-1")
    iam.create_role(RoleName="role", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="profile")
    iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="role")
    run(ec2, IamInstanceProfile={"Name": "profile"})
    me = subject_at({}, "10.99.0.4")
    assert me is not None
    assert find(me.tree, "meta-data/iam/security-credentials") == "role"


def test_images_of_instances_are_baked_and_named_once(
    ec2: Any, fleet: PaperFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Disk, "remove", lambda _: None)
    source = run(ec2)["InstanceId"]
    tags = [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "x"}]} for kind in ("image", "snapshot")]
    made = ec2.create_image(InstanceId=source, Name="baked", NoReboot=True, TagSpecifications=tags)["ImageId"]
    assert fleet.baked == [(source, False)]
    (image,) = ec2.describe_images(Owners=["self"])["Images"]
    assert (image["ImageId"], image["State"], image["Architecture"]) == (made, "pending", "x86_64")
    tagged = ec2.describe_tags(Filters=[{"Name": "value", "Values": ["x"]}])["Tags"]
    assert [tag["ResourceType"] for tag in tagged] == ["image", "snapshot"]
    refused("InvalidAMIName.Duplicate", ec2.create_image, InstanceId=source, Name="baked")
    refused("InvalidAMIID.Unavailable", run, ec2=ec2, ImageId=made)
    next(one for one in own_images()).state = "available"
    assert fleet.machines[run(ec2, ImageId=made)["InstanceId"]].ami_id == made
    assert fleet.machines[run(ec2)["InstanceId"]].ami_id is None
    ec2.deregister_image(ImageId=made)
    refused("InvalidAMIID.Unavailable", run, ec2=ec2, ImageId=made)
