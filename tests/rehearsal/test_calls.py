"""Requests are recognised as calls of services."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from rehearsal.calls import read_call
from rehearsal.faults import Fault, Faults
from rehearsal.front import Front, Recorder

SIGNED = "AWS4-HMAC-SHA256 Credential=rehearsal/20260101/{region}/{service}/aws4_request, SignedHeaders=host"


def request(service: str, body: str = "", method: str = "POST", path: str = "/", **more: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8",
        "HTTP_AUTHORIZATION": SIGNED.format(region="eu-central-1", service=service),
        "wsgi.input": io.BytesIO(body.encode()),
        **more,
    }


ZONES = "/2013-04-01/hostedzone"
LAUNCH = "Action=RunInstances&TagSpecification.1.ResourceType=instance&IamInstanceProfile.Name=x"
TAG = "Tags.member.1.Key=Project&Tags.member.1.Value=b"


@pytest.mark.parametrize(
    ("environ", "needs"),
    [
        (request("ec2", "Action=RunInstances&MinCount=1"), ["ec2:RunInstances"]),
        (request("kms", "{}", HTTP_X_AMZ_TARGET="TrentService.ListKeys"), ["kms:ListKeys"]),
        (request("route53", method="GET", path=f"{ZONES}/Z1/rrset"), ["route53:ListResourceRecordSets"]),
        (request("route53", path=f"{ZONES}/Z1/rrset/"), ["route53:ChangeResourceRecordSets"]),
        (request("route53", method="GET", path=ZONES), ["route53:ListHostedZones"]),
        (request("nothing", path="/x"), ["nothing:Unknown"]),
        # The signature has another name of the service.
        (request("tagging", "{}", HTTP_X_AMZ_TARGET="Resources_20170126.GetResources"), ["tag:GetResources"]),
        # AWS refuses tags to a user who may not tag, and a profile to one who may not pass its role.
        (request("iam", f"Action=CreateRole&RoleName=a&{TAG}"), ["iam:CreateRole", "iam:TagRole"]),
        (request("iam", "Action=CreateRole&RoleName=a"), ["iam:CreateRole"]),
        (request("ec2", LAUNCH), ["ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"]),
    ],
)
def test_needed_permissions_are_those_of_an_iam_policy(environ: dict[str, Any], needs: list[str]) -> None:
    assert read_call(environ).permissions() == needs


def test_body_is_still_there_for_moto() -> None:
    """A request can be read only once."""
    environ = request("ec2", "Action=StopInstances&InstanceId.1=i-1")
    assert read_call(environ).parameters["InstanceId.1"] == "i-1"
    assert environ["wsgi.input"].read() == b"Action=StopInstances&InstanceId.1=i-1"


def front(tmp_path: Path, order: list[str], faults: Faults | None = None) -> Front:
    """Put the front before an application that takes moto's place and records what happens."""

    def moto(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        order.append("moto")
        start_response("200 OK", [])
        return [b"done"]

    return Front(moto, lambda _: order.append("filter"), faults or Faults(), Recorder(tmp_path / "calls.jsonl"))


def test_change_is_carried_out_before_it_is_answered(tmp_path: Path) -> None:
    """A port that the API calls open has to be open."""
    order: list[str] = []
    asked = front(tmp_path, order)
    body = asked(request("ec2", "Action=AuthorizeSecurityGroupIngress"), lambda *_: order.append("answer"))
    assert (order, b"".join(body)) == (["moto", "filter", "answer"], b"done")
    order.clear()
    asked(request("ec2", "Action=DescribeInstances"), lambda *_: order.append("answer"))
    assert order == ["moto", "answer"]


def test_every_call_is_written_down_with_what_a_policy_must_allow(tmp_path: Path) -> None:
    asked = front(tmp_path, [])
    for body in ("Action=DescribeInstances", LAUNCH):
        asked(request("ec2", body), lambda *_: None)
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(line["service"], line["region"], line["status"]) for line in lines} == {("ec2", "eu-central-1", 200)}
    assert [(line["action"], line["needs"]) for line in lines] == [
        ("DescribeInstances", ["ec2:DescribeInstances"]),
        ("RunInstances", ["ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"]),
    ]


@pytest.mark.parametrize(
    ("fault", "call", "status", "code"),
    [
        (Fault("throttle"), "DescribeInstances", "503 Service Unavailable", b"RequestLimitExceeded"),
        (Fault("throttle", action="Describe*"), "DescribeVpcs", "503 Service Unavailable", b"RequestLimitExceeded"),
        (Fault("throttle", action="RunInstances"), "DescribeVpcs", "200 OK", b"done"),
        (Fault("capacity"), "RunInstances", "500 Internal Server Error", b"InsufficientInstanceCapacity"),
        (Fault("capacity"), "StartInstances", "500 Internal Server Error", b"InsufficientInstanceCapacity"),
        (Fault("capacity", type="t2.micro"), "RunInstances", "500 Internal Server Error", b"sufficient t2.micro"),
        (Fault("capacity", type="t2.large"), "RunInstances", "200 OK", b"done"),
        (Fault("capacity", zone="eu-central-1b"), "RunInstances", "200 OK", b"done"),
        (Fault("boot"), "RunInstances", "200 OK", b"done"),
    ],
)
def test_faults_hit_what_they_are_meant_for(tmp_path: Path, fault: Fault, call: str, status: str, code: bytes) -> None:
    faults, seen = Faults(), list[str]()
    faults.add(fault)
    asked = front(tmp_path, [], faults)
    body = asked(request("ec2", f"Action={call}&InstanceType=t2.micro"), lambda line, _: seen.append(line))
    assert seen == [status]
    assert code in b"".join(body)
    asked(request("ec2", f"Action={call}&InstanceType=t2.micro"), lambda line, _: seen.append(line))
    assert seen[1] == "200 OK"
