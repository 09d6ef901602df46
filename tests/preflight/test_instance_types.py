"""The type has to exist in the region, be offered in the zones of the instances, and be large enough."""

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from preflight import instance_types
from roles.ec2.library.type_zones import offering_zones, region_zones
from tests.preflight.cloud import cloud, launch
from tests.preflight.input import REGION, service

pytestmark = pytest.mark.usefixtures("aws")

T2 = "t2.2xlarge, t2.large, t2.medium, t2.micro, t2.nano, t2.small, t2.xlarge"
T3 = "t3.2xlarge, t3.large, t3.medium, t3.micro, t3.nano, t3.small, t3.xlarge"
T3A = "t3a.2xlarge, t3a.large, t3a.medium, t3a.micro, t3a.nano, t3a.small, t3a.xlarge"


def problems(**changes: Any) -> list[str]:
    return list(instance_types.type_problems(cloud(**changes)))


def without(*families: str, name: str) -> list[str]:
    """Check a type in a region that has no type of some families."""
    checked = cloud(ec2_instance_type=name, ec2_region="eu-north-1")
    known = [{"InstanceType": one} for one in f"{T2}, {T3}, {T3A}".split(", ") if one.split(".")[0] not in families]
    with Stubber(checked.ec2) as stubber:
        stubber.add_client_error("describe_instance_types", "InvalidInstanceType")
        stubber.add_response("describe_instance_types", {"InstanceTypes": known})
        return list(instance_types.type_problems(checked))


@pytest.mark.parametrize("name", ["t2.micro", "t2.medium", "t3.micro", "t3a.small", "m7i.large"])
def test_type_of_the_region_is_allowed(name: str) -> None:
    assert problems(ec2_instance_type=name) == []


ARM64 = ", which is arm64, and this project makes images for x86_64 only: eu-central-1 has other types; "


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t2.mikro", ": eu-central-1 has no such type; the nearest that it has is t2.micro (9.78 USD a month)"),
        # Whoever writes a size alone has to see the form of a type.
        ("1GB", f": eu-central-1 has no such type; allowed are for example {T2}, {T3}, {T3A}"),
        # AWS refuses the amd64 image on it after other things are made.
        ("t4g.micro", f"{ARM64}the nearest that it has is t3.micro (8.76 USD a month)"),
        ("t4g.small", f"{ARM64}the nearest that it has is t3.small (17.52 USD a month)"),
    ],
)
def test_type_that_cannot_be_is_refused_with_the_nearest(name: str, said: str) -> None:
    assert problems(ec2_instance_type=name) == [f"ec2_instance_type is {name!r}{said}"]


@pytest.mark.parametrize(
    ("families", "name", "said"),
    [
        (["t2", "t3a"], "t2.micro", "the nearest that it has is t3.micro (7.88 USD a month)"),
        (["t2", "t3a"], "t2.medium", "the nearest that it has is t3.medium (31.54 USD a month)"),
        (["t2", "t3", "t3a"], "t2.micro", "allowed is an x86_64 type that it has, or another region"),
    ],
)
def test_region_without_a_family_suggests_another(families: list[str], name: str, said: str) -> None:
    """Fourteen of thirty regions have no t2; the suggestion used to be an empty list."""
    problem = f"ec2_instance_type is {name!r}: eu-north-1 has no such type; {said}"
    assert without(*families, name=name) == [problem]


def test_instance_type_has_to_hold_the_services() -> None:
    large = [service(replicas=7)]
    (problem,) = problems(stack_services=large)
    assert "7 x 128m of app are 960 MiB, but a t2.micro has 1024 MiB, of which the system needs 192" in problem
    assert problems(stack_services=large, ec2_instance_type="t2.medium") == []


def test_instance_type_has_to_have_the_cpus() -> None:
    greedy = [service(cpus="1.5")]
    said = "cpus is 1.5, but a t2.micro has 1 vCPU: allowed is at most 1, or a larger machine"
    assert problems(stack_services=greedy) == [f"stack_services[0] (app): {said}"]
    assert problems(stack_services=greedy, ec2_instance_type="t2.medium") == []


def zones(letters: str, *, subnets: str = "abc", **changes: Any) -> list[str]:
    """Check the zones when only some of them offer the type."""
    checked = cloud(**changes)
    with Stubber(checked.ec2) as stubber:
        there = [{"ZoneName": f"{REGION}{letter}"} for letter in "cab"]
        stubber.add_response("describe_availability_zones", {"AvailabilityZones": there})
        offered = [{"Location": f"{REGION}{letter}"} for letter in letters]
        stubber.add_response("describe_instance_type_offerings", {"InstanceTypeOfferings": offered})
        if not changes.get("ec2_vpc_cidr"):
            made = [{"AvailabilityZone": f"{REGION}{letter}"} for letter in subnets]
            stubber.add_response("describe_subnets", {"Subnets": made})
        stubber.add_response("describe_instances", {"Reservations": []})
        return list(instance_types.zone_problems(checked))


def test_chosen_zones_have_to_exist_and_to_offer_the_type() -> None:
    """AWS offers t2 in old zones only, and the subnet of an unknown zone cannot be made."""
    assert zones("ca", ec2_zones="eu-central-1a, eu-central-1c") == []
    allowed = "; allowed are eu-central-1a, eu-central-1c"
    assert zones("ca", ec2_zones=["eu-central-1a", "eu-central-1b", "eu-central-1x"]) == [
        f"ec2_zones has 'eu-central-1b', where t2.micro (ec2_instance_type) is not offered{allowed}",
        f"ec2_zones has 'eu-central-1x': eu-central-1 has no such zone{allowed}",
    ]


def test_default_zones_are_those_that_offer_the_type() -> None:
    assert zones("bc", ec2_count=2) == []
    said = "no zone of eu-central-1 with a default subnet offers it; allowed is another ec2_instance_type"
    assert zones("") == [f"ec2_instance_type is 't2.micro': {said}"]


def test_zone_needs_a_subnet_of_the_default_network() -> None:
    said = "where the default VPC has no subnet; allowed are eu-central-1a, eu-central-1b, or an ec2_vpc_cidr"
    assert zones("abc", subnets="ab", ec2_zones=["eu-central-1c"]) == [f"ec2_zones has 'eu-central-1c', {said}"]
    assert zones("abc", ec2_zones=["eu-central-1c"], ec2_vpc_cidr="10.20.0.0/16") == []


def test_running_instance_cannot_become_what_its_zone_does_not_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be stopped for the resize, and could not be started again."""
    (there,) = launch(Project="flask-fleet", Role="app")
    offering = offering_zones(cloud().ec2, "t3.micro") - {f"{REGION}a"}
    monkeypatch.setattr(instance_types, "offering_zones", lambda *_: offering)
    (problem,) = problems(ec2_instance_type="t3.micro")
    assert problem.startswith(f"ec2_instance_type is 't3.micro', but {there} is in eu-central-1a, which does not offer")
    assert problem.endswith("; allowed is t2.micro, which it is, or another type")
    assert problems() == []


def test_zones_are_asked_as_the_role_asks() -> None:
    client = boto3.client("ec2", region_name=REGION)
    assert region_zones(client) == [f"{REGION}{letter}" for letter in "abc"]
    assert offering_zones(client, "t2.micro") == {f"{REGION}{letter}" for letter in "abc"}
    assert offering_zones(client, "t9.micro") == set()
