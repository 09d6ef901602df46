"""Which call a request is."""

import io
from typing import Any

import pytest

from rehearsal.calls import read_call
from rehearsal.front import Front

SIGNED = "AWS4-HMAC-SHA256 Credential=rehearsal/20260101/{region}/{service}/aws4_request, SignedHeaders=host"


def request(service: str, body: str = "", method: str = "POST", path: str = "/", **more: str) -> dict[str, Any]:
    """Write a request as a client signs it."""
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8",
        "HTTP_AUTHORIZATION": SIGNED.format(region="eu-central-1", service=service),
        "wsgi.input": io.BytesIO(body.encode()),
        **more,
    }


@pytest.mark.parametrize(
    ("environ", "call"),
    [
        pytest.param(request("ec2", "Action=RunInstances&MinCount=1"), ("ec2", "RunInstances"), id="query"),
        pytest.param(request("kms", "{}", HTTP_X_AMZ_TARGET="TrentService.ListKeys"), ("kms", "ListKeys"), id="json"),
        pytest.param(
            request("route53", method="GET", path="/2013-04-01/hostedzone/Z1/rrset"),
            ("route53", "ListResourceRecordSets"),
            id="rest",
        ),
        pytest.param(
            request("route53", method="POST", path="/2013-04-01/hostedzone/Z1/rrset/"),
            ("route53", "ChangeResourceRecordSets"),
            id="rest that writes",
        ),
        pytest.param(
            request("route53", method="GET", path="/2013-04-01/hostedzone"), ("route53", "ListHostedZones"), id="root"
        ),
        pytest.param(request("nothing", path="/x"), ("nothing", "Unknown"), id="unknown service"),
    ],
)
def test_service_and_action_are_those_of_an_iam_policy(environ: dict[str, Any], call: tuple[str, str]) -> None:
    """Whatever protocol the service speaks."""
    found = read_call(environ)
    assert (found.service, found.action) == call


def test_body_is_still_there_for_moto() -> None:
    """A request can be read only once."""
    environ = request("ec2", "Action=StopInstances&InstanceId.1=i-1")
    assert read_call(environ).parameters["InstanceId.1"] == "i-1"
    assert environ["wsgi.input"].read() == b"Action=StopInstances&InstanceId.1=i-1"


def test_change_is_carried_out_before_it_is_answered() -> None:
    """A port that the API calls open is open."""
    order: list[str] = []

    def moto(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
        order.append("moto")
        start_response("200 OK", [])
        return [b"done"]

    front = Front(moto, lambda _: order.append("filter"))
    body = front(request("ec2", "Action=AuthorizeSecurityGroupIngress"), lambda *_: order.append("answer"))
    assert (order, b"".join(body)) == (["moto", "filter", "answer"], b"done")
    order.clear()
    front(request("ec2", "Action=DescribeInstances"), lambda *_: order.append("answer"))
    assert order == ["moto", "answer"]
