"""Whoever cannot log in is told which of three causes it has."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from preflight import own_address, unreachable
from preflight.unreachable import Login
from tests.preflight.input import IMAGE, REGION, free_port

HERE = "127.0.0.1"


@pytest.fixture
def ec2() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("ec2", region_name=REGION)


@pytest.fixture
def login(ec2: Any, tmp_path: Path) -> Login:
    """Make a key pair that both sides have."""
    key = tmp_path / "pair"
    key.write_text(ec2.create_key_pair(KeyName="pair", KeyType="ed25519")["KeyMaterial"])
    return Login(HERE, "admin", str(key), ["-o", "HostKeyAlias=i-1"])


@pytest.fixture
def instance(ec2: Any, login: Login) -> dict[str, Any]:
    """Start an instance whose security group admits nobody."""
    group = ec2.create_security_group(GroupName="flask-fleet", Description="test")["GroupId"]
    key = Path(login.key).name
    made = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, SecurityGroupIds=[group], KeyName=key)
    return unreachable.describe(ec2, made["Instances"][0]["InstanceId"])


def allow(ec2: Any, instance: dict[str, Any], *blocks: str) -> None:
    """Let an address in."""
    ranges = [{"CidrIp": block} for block in blocks]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": ranges}
    group = instance["SecurityGroups"][0]["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])


def test_open_and_closed_ports_are_told_apart() -> None:
    """A refused connection got an answer from the machine; a dropped one got none."""
    with socket.create_server((HERE, 0)) as listener:
        assert unreachable.probe(HERE, listener.getsockname()[1]) == "open"
    assert unreachable.probe(HERE, free_port()) == "closed"


def test_silent_port_is_told_from_a_closed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full drops packets, as a security group does."""
    monkeypatch.setattr(unreachable, "PROBE_S", 0.5)
    with socket.socket() as listener:
        listener.bind((HERE, 0))
        listener.listen(0)
        place = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        assert unreachable.probe(*place) == "silent"
        for one in waiting:
            one.close()


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let AWS see this machine at a public address."""
    monkeypatch.setattr(unreachable, "own_address", lambda: "203.0.113.9")


def test_closed_group_is_named_with_its_rules_and_the_own_address(
    ec2: Any, instance: dict[str, Any], login: Login
) -> None:
    # Somebody may have deleted the rule by hand.
    assert "SSH is open to flask-fleet: nobody, but" in unreachable.closed_group(ec2, instance, login)
    allow(ec2, instance, "192.0.2.0/24", "198.51.100.7/32")
    said = unreachable.closed_group(ec2, instance, login)
    assert said == (
        "SECURITY GROUP: Port 22 of 127.0.0.1 does not answer at all. SSH is open to flask-fleet: 192.0.2.0/24, "
        "198.51.100.7/32, but AWS sees this machine at 203.0.113.9. Run playbooks/provision.yml with me or "
        "203.0.113.9/32 in ec2_ssh_cidrs, which lets it in; then run the same again"
    )


def test_group_that_lets_this_machine_in_is_not_blamed(ec2: Any, instance: dict[str, Any], login: Login) -> None:
    allow(ec2, instance, "203.0.113.0/24")
    said = unreachable.closed_group(ec2, instance, login)
    assert said.startswith("BOOT or network: Port 22 of 127.0.0.1 does not answer at all, although the security group")
    assert f"{instance['InstanceId']} is running" in said


def test_address_that_cannot_be_asked_is_not_guessed(
    ec2: Any, instance: dict[str, Any], login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private address would be the wrong one to add."""
    monkeypatch.setattr(unreachable, "own_address", own_address.own_address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    said = unreachable.closed_group(ec2, instance, login)
    assert said.startswith("SECURITY GROUP or network: Port 22 of 127.0.0.1 does not answer at all. SSH is open to ")
    assert "/checkip does not say which address this machine has" in said


def test_running_instance_is_said_to_cost(
    ec2: Any, instance: dict[str, Any], login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreachable, "probe", lambda _: "silent")
    assert "costs" not in unreachable.explain(ec2, instance["InstanceId"], login)
    monkeypatch.setattr(unreachable, "REHEARSAL_ACCOUNT", "another")
    said = unreachable.explain(ec2, instance["InstanceId"], login)
    assert said.endswith(f"\n{instance['InstanceId']} costs money until playbooks/destroy.yml removes it")
    priced = unreachable.expense(ec2, instance | {"InstanceType": "t2.micro"})
    assert "costs about 0.018 USD an hour until" in priced


def test_last_lines_of_the_console_are_shown(ec2: Any, instance: dict[str, Any]) -> None:
    text = "".join(f"line {number}\r\n\n" for number in range(100))
    with Stubber(ec2) as stubber:
        stubber.add_response("get_console_output", {"Output": text})
        said = unreachable.boot_report(ec2, instance)
    assert said.splitlines() == [
        f"{instance['InstanceId']} is running; the last lines of its console:",
        *(f"    line {number}" for number in range(85, 100)),
    ]


def test_console_that_is_empty_or_forbidden_is_said(ec2: Any, instance: dict[str, Any]) -> None:
    """AWS fills it minutes after the boot."""
    with Stubber(ec2) as stubber:
        stubber.add_response("get_console_output", {})
        stubber.add_client_error("get_console_output", "UnauthorizedOperation")
        assert "its console shows nothing yet" in unreachable.boot_report(ec2, instance)
        assert "its console cannot be read" in unreachable.boot_report(ec2, instance)


def test_stopped_instance_is_said_before_anything_is_probed(ec2: Any, instance: dict[str, Any], login: Login) -> None:
    """Its address may be somebody else's by now."""
    ec2.stop_instances(InstanceIds=[instance["InstanceId"]])
    said = unreachable.explain(ec2, instance["InstanceId"], login)
    assert said.startswith(f"BOOT: {instance['InstanceId']} is stopped")


def test_instance_without_sshd_is_still_booting(
    ec2: Any, instance: dict[str, Any], monkeypatch: pytest.MonkeyPatch, login: Login
) -> None:
    monkeypatch.setattr(unreachable, "probe", lambda _: "closed")
    said = unreachable.explain(ec2, instance["InstanceId"], login)
    assert said.startswith("BOOT: 127.0.0.1 answers, but nobody listens on port 22 (yet). ")


def test_unknown_instance_is_a_sentence(ec2: Any, login: Login) -> None:
    said = unreachable.explain(ec2, "i-0123456789abcdef0", login)
    assert said.startswith("i-0123456789abcdef0 does not answer, and AWS does not say more about it: ")


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("admin@127.0.0.1: Permission denied (publickey).\n", ("KEY: ", "made with the key pair pair")),
        ("@@@@\nHost key verification failed.\n", ("KEY: ", "pair.known_hosts")),
        ("kex_exchange_identification: read: Connection reset by peer\n", ("BOOT: ", "but ssh says: kex_exchange")),
        ("", ("BOOT: ", "but ssh says: nothing")),
    ],
)
def test_words_of_ssh_are_translated(
    ec2: Any, instance: dict[str, Any], login: Login, stderr: str, said: tuple[str, str]
) -> None:
    """The person can correct only the key; a reset comes from a machine that is not ready."""
    begin, within = said
    told = unreachable.refused_login(ec2, instance, login, stderr)
    assert told.startswith(begin)
    assert within in told


def test_wrong_key_is_found_also_when_sshd_has_had_enough(
    ec2: Any, instance: dict[str, Any], login: Login, tmp_path: Path
) -> None:
    """After a few failed logins sshd only resets connections, which looks like a machine that is not ready."""
    reset = "kex_exchange_identification: read: Connection reset by peer\n"
    other = tmp_path / "other"
    other.write_text(ec2.create_key_pair(KeyName="other", KeyType="ed25519")["KeyMaterial"])
    wrong = Login(HERE, "admin", str(other))
    assert unreachable.refused_login(ec2, instance, wrong, reset).startswith("KEY: ")
    assert unreachable.refused_login(ec2, instance, login, reset).startswith("BOOT: ")


def test_login_is_tried_as_ansible_does(login: Login) -> None:
    """It never prompts, and uses a new connection, because a kept one would hide the cause."""
    command = login.command()
    assert command[:3] == ["ssh", "-o", "HostKeyAlias=i-1"]
    assert {"BatchMode=yes", "ControlPath=none"} <= set(command)
    assert command[-2:] == ["admin@127.0.0.1", "true"]
