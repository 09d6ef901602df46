"""The word ``me`` stands for the address that AWS sees, asked where AWS_ENDPOINT_URL says."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader

from preflight import network, own_address
from preflight.own_address import UnknownAddressError, ssh_blocks
from tests.preflight.input import free_port
from tests.project import ROOT


class Answer(BaseHTTPRequestHandler):
    status, body = 200, b"198.51.100.7\n"

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/checkip" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start an endpoint, and make AWS_ENDPOINT_URL point to it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield url
        server.shutdown()


def test_aws_is_asked_unless_an_endpoint_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_address.service() == "https://checkip.amazonaws.com"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:7152/")
    assert own_address.service() == "http://127.0.0.1:7152/checkip"


@pytest.mark.usefixtures("endpoint")
def test_me_becomes_the_address_that_is_seen() -> None:
    """An address that is in the list already is not repeated, because EC2 refuses a rule twice."""
    assert ssh_blocks(["me"]) == ["198.51.100.7/32"]
    assert ssh_blocks(["203.0.113.0/24", "me", "198.51.100.7/32"]) == ["203.0.113.0/24", "198.51.100.7/32"]


@pytest.mark.usefixtures("endpoint")
def test_new_address_is_seen_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ssh_blocks(["me"])
    monkeypatch.setattr(Answer, "body", b"192.0.2.99\n")
    assert ssh_blocks(["me"]) == ["192.0.2.99/32"]


def test_nobody_is_asked_without_me(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert ssh_blocks(["203.0.113.7/32"]) == ["203.0.113.7/32"]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (407, b"Proxy Authentication Required", "HTTP 407, 'Proxy Authentication Required'"),
        (200, b"<html>Log in" + 1000 * b".", f"HTTP 200, '<html>Log in{48 * '.'}'"),
        (200, b"2001:db8::7\n", "HTTP 200, '2001:db8::7'"),
        (200, b"", "HTTP 200, ''"),
    ],
)
def test_answer_that_is_no_address_is_said(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, why: str
) -> None:
    """Proxies and hotels answer in the place of the server that was asked."""
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setattr(Answer, "body", body)
    with pytest.raises(UnknownAddressError) as error:
        ssh_blocks(["me"])
    said = str(error.value)
    assert said.startswith(f"ec2_ssh_cidrs has 'me', but {endpoint}/checkip does not say which address this machine")
    assert why in said
    assert said.endswith("Allowed is your own address in its place, such as 203.0.113.7/32")


def test_no_network_is_said_by_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    (unknown,) = network.unreachable_ssh({"ec2_ssh_cidrs": ["me"]}, rehearsal=True)
    assert unknown.startswith(f"ec2_ssh_cidrs has 'me', but {url}/checkip does not say")
    (private,) = network.unreachable_ssh({"ec2_ssh_cidrs": ["10.0.0.0/8"]}, rehearsal=False)
    assert private.startswith("ec2_ssh_cidrs is ['10.0.0.0/8'], but AWS never sees a private address")
    assert f"{url}/checkip does not say" in private


@pytest.mark.usefixtures("endpoint")
def test_playbooks_ask_by_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    lookup_loader.add_directory(str(ROOT / "plugins/lookup"))
    lookup = lookup_loader.get("ssh_blocks")
    assert lookup.run([["me", "203.0.113.0/24"]]) == ["198.51.100.7/32", "203.0.113.0/24"]
    assert lookup.run(["203.0.113.0/24, me"]) == ["203.0.113.0/24", "198.51.100.7/32"]
    monkeypatch.setattr(Answer, "body", b"")
    with pytest.raises(AnsibleLookupError, match="ec2_ssh_cidrs has 'me'"):
        lookup.run([["me"]])
