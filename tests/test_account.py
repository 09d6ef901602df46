"""Without an account or a rehearsal a run ends with one message, before Ansible's inventory parsers add theirs."""

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
from botocore.stub import Stubber
from moto import mock_aws
from moto.server import ThreadedMotoServer

from preflight import account
from tests.project import ROOT

REGION = "eu-central-1"

REFUSED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>{code}</Code><Message>The security token is refused.</Message></Error>
<RequestId>1</RequestId></ErrorResponse>"""


class Refusal(http.server.BaseHTTPRequestHandler):
    """Answers every request as AWS answers an unknown key."""

    code = "InvalidClientTokenId"

    def do_POST(self) -> None:
        """Refuse the request."""
        body = REFUSED.format(code=self.code).encode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(autouse=True)
def _fresh_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget boto3's session, which keeps the first credentials that it found."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "123456789012")


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
    """Return an endpoint at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def forget_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the test credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def refusal(region: str = REGION) -> str:
    """Ask for the caller's identity, and expect a refusal."""
    with pytest.raises(account.AccountError) as refused:
        account.identify(region)
    return str(refused.value)


@pytest.fixture
def aws() -> Iterator[None]:
    """Answer as AWS, without a network."""
    with mock_aws():
        yield


@pytest.mark.usefixtures("aws")
def test_account_that_answers_is_said() -> None:
    """The check must not stop people who have an account, and they have to see which one it is."""
    who = account.identify(REGION)
    assert not who.is_rehearsal
    assert str(who) == "AWS account 123456789012, region eu-central-1 (arn:aws:sts::123456789012:user/moto)"


def test_rehearsal_is_said() -> None:
    """The person has to know that this costs no money."""
    who = account.Identity("000000000000", "arn:aws:sts::000000000000:user/moto", REGION, "http://127.0.0.1:7152")
    assert who.is_rehearsal
    assert str(who) == "REHEARSAL at http://127.0.0.1:7152, region eu-central-1"


@pytest.mark.parametrize(
    ("number", "endpoints", "why"),
    [
        ("123456789012", ["http://127.0.0.1:7152"], "but says that it is account 123456789012"),
        ("123456789012", ["http://localhost:7152"], "but says that it is account 123456789012"),
        ("123456789012", ["http://[::1]:7152"], "but says that it is account 123456789012"),
        ("000000000000", ["https://ec2.eu-central-1.amazonaws.com"], "which is the rehearsal's, but"),
        ("000000000000", ["http://10.0.0.5:7152"], "which is the rehearsal's, but"),
        ("000000000000", ["http://127.0.0.1:7152", "https://ec2.us-east-1.amazonaws.com"], "allowed is all or none"),
        ("123456789012", ["http://127.0.0.1:7152", "https://ec2.us-east-1.amazonaws.com"], "allowed is all or none"),
    ],
)
def test_mixture_is_refused(number: str, endpoints: list[str], why: str) -> None:
    """Half a rehearsal would make real machines, or prove nothing."""
    found = account.mixture(number, endpoints)
    assert found
    assert why in found
    assert endpoints[0] in found


@pytest.mark.parametrize(
    ("number", "endpoint"),
    [
        ("123456789012", "https://ec2.eu-central-1.amazonaws.com"),
        ("123456789012", "https://ec2.example.org"),
        ("000000000000", "http://127.0.0.1:7152"),
        ("000000000000", "http://localhost:7152"),
    ],
)
def test_clear_case_is_allowed(number: str, endpoint: str) -> None:
    """A private endpoint of AWS is an endpoint of AWS."""
    assert account.mixture(number, [endpoint, endpoint]) is None


def test_foreign_api_on_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another emulator answers with its own account over HTTP, so the whole check is tested."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        assert refusal() == (
            f"http://{host}:{port} is on this machine, but says that it is account 123456789012; "
            "the rehearsal is 000000000000"
        )
    finally:
        server.stop()


@pytest.mark.usefixtures("aws")
def test_second_way_to_choose_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The amazon.aws modules read AWS_URL and boto3 does not, so they would not use the account that was checked."""
    monkeypatch.setenv("AWS_URL", "http://127.0.0.1:1")
    assert refusal().startswith("AWS_URL is 'http://127.0.0.1:1': allowed is to unset it")


@pytest.mark.usefixtures("aws")
def test_misspelt_region_is_refused() -> None:
    """The inventory would wait for a host name that does not exist."""
    said = refusal("eu-centrl-1")
    assert said.startswith(
        "The region is 'eu-centrl-1' (regions in aws_ec2.yml): AWS has no such region; did you mean eu-central-1?"
    )
    assert "us-east-1" in said
    assert "me-south-1" not in said


@pytest.mark.usefixtures("aws")
def test_region_that_is_not_enabled_is_refused() -> None:
    """AWS itself says only that the credentials are invalid."""
    assert refusal("me-south-1").startswith(
        "The region is 'me-south-1' (regions in aws_ec2.yml), which account 123456789012 has not enabled: enable it"
    )


def test_region_is_not_refused_without_the_permission_to_ask() -> None:
    """Who may not list regions may well have one."""
    client = boto3.client("ec2", region_name="us-east-1")
    with Stubber(client) as stubber:
        stubber.add_client_error("describe_regions", "UnauthorizedOperation")
        assert account.unusable_region(client, REGION, "123456789012") is None


@pytest.mark.parametrize("text", ["plugin: amazon.aws.aws_ec2\n", "regions: []\n", "regions\n", "{", None])
def test_inventory_without_a_region_is_refused(tmp_path: Path, text: str | None) -> None:
    """The message names the file, because the region is set only there."""
    if text is not None:
        (tmp_path / "aws_ec2.yml").write_text(text)
    with pytest.raises(account.AccountError, match=r"aws_ec2\.yml names no region"):
        account.inventory_region(tmp_path)


def test_region_of_the_inventory_is_the_one_that_is_shipped() -> None:
    """The file is read as aws_ec2 reads it."""
    assert account.inventory_region(ROOT / "inventories/aws") == "eu-central-1"


def test_instances_are_made_where_they_are_looked_for() -> None:
    """With another region in -e alone they would be made there, not found, and made again."""
    who = account.Identity("123456789012", "arn", REGION, "https://ec2.eu-central-1.amazonaws.com")
    assert list(account.other_region({"ec2_region": REGION}, who)) == []
    (problem,) = account.other_region({"ec2_region": "us-east-1"}, who)
    assert problem.startswith("ec2_region is 'us-east-1', but the inventory looks for instances in eu-central-1: ")


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the commonest first run: no account and no rehearsal."""
    forget_credentials(monkeypatch)
    assert refusal() == f"There are no AWS credentials and no rehearsal is chosen. Two ways on:\n{account.WAYS_OUT}"


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    """The shell still points to a rehearsal that is down; the message names the variable and its value."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
    assert refusal() == f"Nobody answers at {nobody} (AWS_ENDPOINT_URL). Two ways on:\n{account.WAYS_OUT}"


@pytest.mark.parametrize(("code", "meaning"), account.REFUSALS.items(), ids=account.REFUSALS)
def test_refused_credentials(monkeypatch: pytest.MonkeyPatch, refusing: str, code: str, meaning: str) -> None:
    """An expired token, an unknown key and a wrong secret need different actions."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    monkeypatch.setattr(Refusal, "code", code)
    assert refusal() == f"{meaning} ({code}). Two ways on:\n{account.WAYS_OUT}"


def test_refusal_without_a_translation_is_passed_on(monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    """AWS has more codes than the check knows."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    monkeypatch.setattr(Refusal, "code", "InvalidIdentityToken")
    assert refusal().startswith("AWS does not accept the credentials: An error occurred (InvalidIdentityToken)")


def test_refusal_that_no_other_credentials_help_against(monkeypatch: pytest.MonkeyPatch, refusing: str) -> None:
    """Other credentials of the account would be refused in the same way."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    monkeypatch.setattr(Refusal, "code", "Blocked")
    said = refusal()
    assert said.startswith("AWS does not say whose credentials these are: An error occurred (Blocked) when calling")
    assert "\nTo change: nothing here: AWS has blocked the account" in said
    assert account.WAYS_OUT not in said


def test_expired_single_sign_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the command that renews it."""
    forget_credentials(monkeypatch)
    config = tmp_path / "config"
    config.write_text(
        "[profile work]\nsso_start_url = https://example.org/start\nsso_region = eu-central-1\n"
        "sso_account_id = 123456789012\nsso_role_name = admin\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refusal().startswith("The login has expired or cannot be read; log in again with: aws sso login (")


def write_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Choose a profile with these settings, and no key in the environment."""
    forget_credentials(monkeypatch)
    config = tmp_path / "config"
    config.write_text(f"[profile work]\n{text}[profile own]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_profile_that_needs_a_code_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise the inventory would prompt for the code, unseen, and each module again."""
    write_profile(
        monkeypatch,
        tmp_path,
        "role_arn = arn:aws:iam::123456789012:role/admin\nsource_profile = own\n"
        "mfa_serial = arn:aws:iam::123456789012:mfa/jane\n",
    )
    said = refusal()
    assert said.startswith("The profile work has mfa_serial")
    assert 'eval "$(aws configure export-credentials --profile work --format env)"; unset AWS_PROFILE' in said


def test_profile_beside_a_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehearsal in a shell with a profile causes it; amazon.aws's message would be hidden among three others."""
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert refusal() == (
        "AWS_PROFILE is 'work', and AWS_ACCESS_KEY_ID is set as well: allowed is one; for the key: "
        "unset AWS_PROFILE AWS_DEFAULT_PROFILE"
    )


def test_login_of_the_command_line_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Botocore reads the credentials of `aws login` only with awscrt, so the lock file has it."""
    write_profile(monkeypatch, tmp_path, "login_session = arn:aws:iam::123456789012:user/jane\n")
    assert refusal().startswith("The login has expired or cannot be read; log in again with: aws login (")


def test_half_a_pair_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten second export gives a sentence, not a traceback."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "AWS_SECRET_ACCESS_KEY" in refusal().replace(account.WAYS_OUT, "")


def test_unknown_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names a misspelt AWS_PROFILE."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    assert "no-such-profile" in refusal()


def test_endpoint_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the missing http://, and no parser adds its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    assert refusal().startswith("AWS_ENDPOINT_URL is 'localhost': Invalid endpoint: localhost.")


def list_inventory(tmp_path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the real ansible-inventory, without the shell's variables for Ansible and AWS."""
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
        command, check=False, capture_output=True, text=True, timeout=600, cwd=ROOT, env=clean | environment
    )


def test_inventory_says_it_once_and_ends(tmp_path: Path) -> None:
    """There is no warning of a parser, and no empty inventory with which a play would succeed."""
    run = list_inventory(tmp_path)
    assert run.returncode == 1
    assert run.stdout == ""
    expected = f"[ERROR]: There are no AWS credentials and no rehearsal is chosen. Two ways on:\n{account.WAYS_OUT}"
    assert run.stderr.strip() == expected


def test_inventory_names_the_endpoint(tmp_path: Path, nobody: str) -> None:
    """For a rehearsal that is down, the account is checked before instances are listed."""
    credentials = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    run = list_inventory(tmp_path, AWS_ENDPOINT_URL=nobody, **credentials)
    assert run.returncode == 1
    assert run.stderr.strip() == (
        f"[ERROR]: Nobody answers at {nobody} (AWS_ENDPOINT_URL). Two ways on:\n{account.WAYS_OUT}"
    )
