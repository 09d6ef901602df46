"""The instance metadata service, without a network."""

import http.client
import threading
import time
from http import HTTPStatus

import pytest

from rehearsal import metadata
from rehearsal.metadata import Options, Service, Subject, Tree, find

TREE: Tree = {
    "meta-data": {
        "instance-id": "i-1",
        "placement": {"region": "eu-central-1"},
        "public-keys": {"0": {"openssh-key": "ssh-ed25519 AAAA me"}},
    },
    "user-data": "#!/bin/sh",
}
LIFETIME = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "x-aws-ec2-metadata-token"  # noqa: S105 (the name of a header)


def service(**options: object) -> Service:
    subject = Subject("i-1", Options(**options), TREE)  # type: ignore[arg-type]
    return Service("secret", lambda address: subject if address == "10.99.0.4" else None)


def ask(asked: Service, path: str, method: str = "GET", **headers: str) -> metadata.Answer:
    return asked.answer("10.99.0.4", method, path, {name.replace("_", "-"): value for name, value in headers.items()})


def token(asked: Service, lifetime: str = "60") -> metadata.Answer:
    return asked.answer("10.99.0.4", "PUT", "/latest/api/token", {LIFETIME: lifetime})


def test_directories_and_files_are_told_apart_as_on_aws() -> None:
    assert find(TREE, "meta-data") == "instance-id\nplacement/\npublic-keys/"
    assert find(TREE, "meta-data/public-keys/") == "0=me"
    assert find(TREE, "meta-data/placement/region") == "eu-central-1"
    assert find(TREE, "meta-data/placement/region/x") is None


def test_tokens_are_needed_only_if_required() -> None:
    """IMDSv1 answers unless HttpTokens is required; a wrong token never does."""
    assert ask(service(), "/latest/meta-data/instance-id").text == "i-1"
    strict = service(tokens_required=True)
    path = "/latest/meta-data/instance-id"
    assert ask(strict, path).status == HTTPStatus.UNAUTHORIZED
    assert strict.answer("10.99.0.4", "GET", path, {TOKEN: token(strict).text}).text == "i-1"
    for wrong in ("nonsense", "", token(service()).text[:-4] + "AAA=", "é"):
        assert strict.answer("10.99.0.4", "GET", path, {TOKEN: wrong}).status == HTTPStatus.UNAUTHORIZED


def test_tokens_end_and_belong_to_one_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = service(tokens_required=True)
    mine = token(asked, "60").text
    foreign = Service("secret", lambda _: Subject("i-2", Options(tokens_required=True), TREE))
    path = "/latest/user-data"
    assert foreign.answer("10.99.0.5", "GET", path, {TOKEN: mine}).status == HTTPStatus.UNAUTHORIZED
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert asked.answer("10.99.0.4", "GET", path, {TOKEN: mine}).status == HTTPStatus.UNAUTHORIZED


def test_only_the_token_has_a_hop_limit() -> None:
    assert token(service(hops=1)).hops == 1
    assert ask(service(hops=1), "/latest/user-data").hops is None


@pytest.mark.parametrize("lifetime", ["", "0", "21601", "-1", "x"])
def test_lifetime_of_a_token_has_limits(lifetime: str) -> None:
    assert token(service(), lifetime).status == HTTPStatus.BAD_REQUEST


def test_strangers_proxies_and_disabled_services_are_refused() -> None:
    assert service().answer("10.99.0.9", "GET", "/latest/user-data", {}).status == HTTPStatus.FORBIDDEN
    assert ask(service(enabled=False), "/latest/user-data").status == HTTPStatus.FORBIDDEN
    headers = {LIFETIME: "60", "x-forwarded-for": "192.0.2.1"}
    assert service().answer("10.99.0.4", "PUT", "/latest/api/token", headers).status == HTTPStatus.FORBIDDEN
    assert ask(service(), "/latest/user-data", "POST").status == HTTPStatus.METHOD_NOT_ALLOWED
    assert ask(service(), "/2099/user-data").status == HTTPStatus.NOT_FOUND
    assert ask(service(), "/2021-03-23/user-data").status == HTTPStatus.OK


def test_it_answers_over_http() -> None:
    asked = Service("secret", lambda _: Subject("i-1", Options(), TREE))
    with metadata.server("127.0.0.1", 0, asked) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", listening.server_port, timeout=5)
        connection.request("PUT", "/latest/api/token", headers={LIFETIME: "5"})
        answer = connection.getresponse()
        assert answer.headers[LIFETIME] == "5"
        connection.request("GET", "/latest/user-data", headers={TOKEN: answer.read().decode()})
        assert connection.getresponse().read() == b"#!/bin/sh"
        connection.close()
        listening.shutdown()
