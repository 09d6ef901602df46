"""Who has no account and no rehearsal is told so once, before Ansible's inventory parsers say it in their words."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from plugins.inventory import account
from tests.project import ROOT

REFUSED = b"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>InvalidClientTokenId</Code><Message>The security token included in the request is invalid.</Message></Error>
<RequestId>1</RequestId></ErrorResponse>"""


class Refusal(http.server.BaseHTTPRequestHandler):
    """Answers every request as AWS answers a key that it does not know."""

    def do_POST(self) -> None:
        """Refuse."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(REFUSED)))
        self.end_headers()
        self.wfile.write(REFUSED)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def _fresh_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boto3 remembers the credentials that it found first."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
def refusing() -> Iterator[str]:
    """Start an API that refuses everybody."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody() -> str:
    """Name an endpoint at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def forget_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the test credentials away."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def test_account_that_answers_is_no_problem() -> None:
    """The check must not stand in the way of who has an account."""
    with mock_aws():
        assert account.problem() is None


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commonest first run: no account, no rehearsal."""
    forget_credentials(monkeypatch)
    assert account.problem() == (
        f"There are no AWS credentials and no rehearsal is chosen. Two ways on:\n{account.WAYS_OUT}"
    )


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    """The shell still points at a rehearsal that is down; the message names the variable and its value."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
    assert account.problem() == f"Nobody answers at {nobody} (AWS_ENDPOINT_URL). Two ways on:\n{account.WAYS_OUT}"


def test_refused_credentials(monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    """What AWS says is passed on, because an expired token and an unknown key are mended differently."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    found = account.problem()
    assert found is not None
    assert found.startswith("AWS does not accept the credentials: ")
    assert "InvalidClientTokenId" in found
    assert found.endswith(account.WAYS_OUT)


def test_half_a_pair_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten second export is a sentence, not a traceback."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = account.problem()
    assert found is not None
    assert "AWS_SECRET_ACCESS_KEY" in found.replace(account.WAYS_OUT, "")


def test_unknown_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt AWS_PROFILE is named."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    assert "no-such-profile" in str(account.problem())


def test_endpoint_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten http:// is named, not buried under what the parsers say."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    assert str(account.problem()).startswith("AWS_ENDPOINT_URL is 'localhost': Invalid endpoint: localhost.")


def list_inventory(tmp_path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the real ansible-inventory, without whatever the shell says about Ansible and AWS."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    clean |= {
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_NOCOLOR": "1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", "inventories/aws", "--list"]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT, env=clean | environment
    )


def test_inventory_says_it_once_and_ends(tmp_path: Path) -> None:
    """No parser warning before or after it, and no empty inventory that a play would call a success."""
    run = list_inventory(tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    expected = f"[ERROR]: There are no AWS credentials and no rehearsal is chosen. Two ways on:\n{account.WAYS_OUT}"
    assert run.stderr.strip() == expected


def test_inventory_names_the_endpoint(tmp_path: Path, nobody: str) -> None:
    """The same from the outside for a rehearsal that is down: the account is asked before instances are."""
    credentials = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    run = list_inventory(tmp_path, AWS_ENDPOINT_URL=nobody, **credentials)
    assert run.returncode == 1
    assert run.stderr.strip() == (
        f"[ERROR]: Nobody answers at {nobody} (AWS_ENDPOINT_URL). Two ways on:\n{account.WAYS_OUT}"
    )
