"""AWS's API by an unpatched moto without machines, for the playbooks that talk to AWS alone."""

from __future__ import annotations

import json
import logging
import pickle
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.ec2.models.instances import InstanceBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from bench.ec2 import PROJECT, REGION, client
from bench.playbook import Outcome
from rehearsal import CREDENTIAL
from rehearsal.faults import Fault, Faults
from rehearsal.front import Front, Recorder
from rehearsal.policy import Policy
from rehearsal.store import backends, put_back
from roles.ec2.library.tagged_resources_info import Resources, of_dns, of_ec2, of_iam

ZONE = "example.com"
SERVICES = {"ec2", "iam", "route53"}
"""The services that the playbooks change; moto's other ones hold objects that cannot be copied."""

VARIABLES = {
    "ec2_vpc_cidr": "10.20.0.0/16",
    "ec2_zones": ["eu-central-1a"],
    "ec2_dns_zone": ZONE,
    "ec2_ssh_cidrs": ["203.0.113.7/32"],
    "ec2_instance_policies": ["arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"],
}
"""Variables with which the role makes everything that it can, so that it makes all of its calls."""


def costly(ec2: Any) -> set[str]:
    """List all that costs in the whole account, except for the snapshots of moto's machine images."""
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    groups = ec2.describe_instances(Filters=alive)["Reservations"]
    return {
        *(str(one["InstanceId"]) for group in groups for one in group["Instances"]),
        *(str(one["VolumeId"]) for one in ec2.describe_volumes()["Volumes"]),
        *(str(one["PublicIp"]) for one in ec2.describe_addresses()["Addresses"]),
        *(str(one["SnapshotId"]) for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]),
    }


class Greeter(socketserver.BaseRequestHandler):
    """Sends the greeting of a machine whose SSH is up."""

    def handle(self) -> None:
        """Send the greeting."""
        self.request.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")


class Cloud:
    """An account, and the playbooks that work on it."""

    def __init__(self, folder: Path) -> None:
        """Serve the API until the process ends.

        ``folder`` takes the record of the calls, and the home of whoever runs the playbooks.
        """
        self.faults = Faults()
        self.policy: dict[str, Any] = {}
        self.home = folder / "home"
        self.home.mkdir()
        self._unused = b""
        self._foreign: set[str] = set()
        self._calls = folder / "calls.jsonl"
        moto = DomainDispatcherApplication(create_backend_app)
        front = Front(moto, lambda _: None, self.faults, Recorder(self._calls), lambda: Policy(self.policy))
        self.server = make_server("127.0.0.1", 0, front, threaded=True)
        self.server.daemon_threads = True  # type: ignore[attr-defined]
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """The URL of the API."""
        return f"http://127.0.0.1:{self.server.port}"

    def playbook(self, name: str, *arguments: str, **variables: Any) -> Outcome:
        """Run a playbook on the controller alone, because there are no machines."""
        self._calls.unlink(missing_ok=True)
        given = json.dumps(VARIABLES | variables)
        command = ["ansible-playbook", f"playbooks/{name}.yml", "-i", "inventories/aws", "--limit", "localhost"]
        return Outcome([*command, "-e", given, *arguments])

    def calls(self) -> list[str]:
        """List the calls of the last playbook, in order."""
        lines = [json.loads(line) for line in self._calls.read_text().splitlines()]
        return [f"{one['service']}:{one['action']}" for one in lines]

    def client(self, service: str) -> Any:
        """Make a client with the rights of an administrator."""
        return client(service)

    def begin(self) -> None:
        """Remove all but one hosted zone from the account, and allow everything."""
        self.policy = {}
        if not self._unused:
            self.client("route53").create_hosted_zone(Name=ZONE, CallerReference="1")
            # The first question makes moto's memory of a service.
            self.client("ec2").describe_instances()
            self.client("iam").list_roles()
            self._unused = self.keep()
        self.put_back(self._unused)
        self._foreign = set()
        self._foreign = self.costly()

    def keep(self) -> bytes:
        """Return a copy of the whole account."""
        return pickle.dumps({name: kept for name, kept in backends().items() if name in SERVICES})

    def put_back(self, kept: bytes) -> None:
        """Restore a copy of the account."""
        self.faults.clear()
        put_back(pickle.loads(kept))  # noqa: S301 - written by keep

    def refuse(
        self, action: str, code: str = "Blocked", words: str = "Words of AWS.", *, nth: int = 1, count: int = 1
    ) -> None:
        """Let AWS refuse a call, with an error after which no client tries again."""
        self.faults.add(Fault("error", count, action, code, words, nth))

    def ours(self) -> Resources:
        """List what destroy would find."""
        return (
            of_ec2(self.client("ec2"), PROJECT, {})
            | of_iam(self.client("iam"), f"{PROJECT}-{REGION}", PROJECT, {})
            | of_dns(self.client("route53"), ZONE, ZONE, {})
        )

    def costly(self) -> set[str]:
        """List all that costs and was not there at the beginning."""
        return costly(self.client("ec2")) - self._foreign


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Serve one account for all tests."""
    assert InstanceBackend.run_instances.__module__.startswith("moto."), "moto is patched in this process"
    made = Cloud(tmp_path_factory.mktemp("aws"))
    yield made
    made.server.shutdown()


@pytest.fixture
def aws(account: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Make the clients of this process and the playbooks use the account."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIAL)
    monkeypatch.setenv("HOME", str(account.home))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return account


@pytest.fixture
def empty(aws: Cloud) -> Cloud:
    """Return an account with nothing but a hosted zone."""
    aws.begin()
    return aws


@pytest.fixture(scope="session")
def states() -> dict[str, bytes]:
    """Keep copies of accounts for other tests: to make one with an instance takes half a minute."""
    return {}


@pytest.fixture
def provisioned(empty: Cloud, states: dict[str, bytes]) -> Cloud:
    """Return an account with one instance and all that belongs to it."""
    if "provisioned" not in states:
        made = empty.playbook("provision")
        assert made.ok, made.said
        states["provisioned"] = empty.keep()
    empty.put_back(states["provisioned"])
    return empty


@pytest.fixture
def answering(provisioned: Cloud) -> Iterator[Cloud]:
    """Let a server answer as SSH at the address of the instance, which moto takes from 127.0.0.0/8."""
    (address,) = provisioned.ours()["address"]
    with socketserver.ThreadingTCPServer((address["id"], 22), Greeter) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield provisioned
        server.shutdown()
        thread.join()
