"""A running stack as the scenarios see it: over HTTP from outside, and through the engine inside."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from email.message import Message
from typing import Any, Self

import testinfra
from testinfra.host import Host

from bench.ec2 import client
from bench.load import Load
from bench.project import ROOT, load_mapping

CLIENTS = 8
RECONNECTING = CLIENTS // 2
"""Clients that open a connection for each request: one that keeps its own does not notice that new ones are refused."""
RATE = 200
"""Requests per second: enough to meet a gap of a few milliseconds, little enough for a t2.micro."""
PATIENCE_S = 120
ANSWER_S = 10
SOCKET = "~/.ansible/cp/testinfra-%C"
"""Path of the shared connection; SSH replaces %C by a hash of user, address and port."""
WAY_IN = (
    "[ansible_user, ansible_host, ansible_ssh_private_key_file, ansible_ssh_common_args,"
    " lookup('ansible.builtin.config', 'ssh_args', plugin_type='connection', plugin_name='ssh')]"
)
"""How Ansible reaches an instance; the last are the options of ansible.cfg that keep a connection."""


@dataclass
class Replica:
    """One container of a service, as the engine lists it."""

    id: str
    name: str
    status: str


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: Message
    text: str


def over_ssh(host: Host) -> Host:
    """Reach an instance over one connection that stays open; through Ansible each command takes a second or two."""
    # The debug module, because Testinfra's own way to the variables leaves them unevaluated.
    user, address, key, *options = host.ansible("ansible.builtin.debug", f"msg={{{{ {WAY_IN} }}}}")["msg"]
    shared = " ".join([*options, f"-o ControlPath={SOCKET}"])
    return testinfra.get_host(f"ssh://{user}@{address}", sudo=True, ssh_identity_file=key, ssh_extra_args=shared)


class Stack:
    """The stack of one instance, asked over HTTP from outside and through the engine inside."""

    def __init__(self, host: Host) -> None:
        """Ask an instance, reached over SSH, for its id and its number of replicas."""
        self.host = host
        self.address = host.backend.get_hostname()
        self.instance_id = host.check_output("cat /var/lib/cloud/data/instance-id")
        self.name, self.prefix = self.address, ""
        self.directory = load_mapping(ROOT / "roles/stack/defaults/main.yml")["stack_directory"]
        self.replicas = self.wanted()

    def at(self, name: str, prefix: str) -> Self:
        """Return the same stack, asked by another host name and below a path without a slash at its end."""
        other = copy(self)
        other.name, other.prefix = name, prefix
        return other

    def wanted(self) -> int:
        """Read how many replicas the live release asks for."""
        config = json.loads(self.host.check_output(f"cd {self.directory} && docker compose config --format json"))
        return int(config["services"]["app"]["deploy"]["replicas"])

    @property
    def ec2(self) -> Any:
        """A client of the EC2 API that made the instance."""
        return client("ec2")

    def containers(self, service: str) -> list[Replica]:
        """List the running containers of a service of compose.yml."""
        label = f"label=com.docker.compose.service={service}"
        listed = self.host.check_output(f"docker ps --filter {label} --format json")
        rows = [json.loads(line) for line in listed.splitlines()]
        return [Replica(row["ID"], row["Names"], row["Status"]) for row in rows]

    def inspect(self, service: str) -> list[dict[str, Any]]:
        """Inspect the running containers of a service of compose.yml."""
        ids = " ".join(replica.id for replica in self.containers(service))
        found: list[dict[str, Any]] = json.loads(self.host.check_output(f"docker inspect {ids}"))
        return found

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page, with further headers (_ stands for -); an answer of any status is returned."""
        return self.send("GET", path, None, **headers)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request, with further headers (_ stands for -); an answer of any status is returned."""
        named = {name.replace("_", "-"): value for name, value in headers.items()} | {"Host": self.name}
        with self.connect() as connection:
            connection.request(method, f"{self.prefix}{path}", body, named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())

    def connect(self) -> closing[http.client.HTTPConnection]:
        """Open a connection from outside that is kept alive between requests."""
        return closing(http.client.HTTPConnection(self.address, timeout=ANSWER_S))

    def whoami(self, connection: http.client.HTTPConnection) -> str:
        """Ask for the id of the container that answers.

        Raises:
            OSError: There was no answer, or one with another status than 200.
        """
        connection.request("GET", f"{self.prefix}/whoami", headers={"Host": self.name})
        response = connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise OSError(f"status {response.status}")
        return str(json.loads(body)["container"])

    def ask(self, requests: int) -> Counter[str]:
        """Send requests one after the other over one connection; the number of answers is counted by container id."""
        with self.connect() as connection:
            return Counter(self.whoami(connection) for _ in range(requests))

    def under_load(self, rate: float = RATE) -> Load:
        """Return a load of so many requests per second, which runs during a ``with`` block.

        Half of the requests are GET and half POST, and half of the clients keep their connections.
        """
        return Load(
            f"http://{self.name}/",
            rate=rate,
            clients=CLIENTS,
            reconnecting=RECONNECTING,
            methods={"GET": 0.5, "POST": 0.5},
            path=f"{self.prefix}/whoami",
            address=self.address,
        )

    def logged(self, request_id: str) -> dict[str, Any]:
        """Find a request in nginx's log, and wait until it is there."""
        # Not through Compose, which clears each line for a terminal, also where there is none.
        lines = f"docker logs {self.containers('nginx')[0].id} 2> /dev/null | grep {request_id}"
        # nginx keeps lines back for a second.
        self.wait_for("nginx has logged it", lambda: self.host.run(lines).rc == 0)
        return dict(json.loads(self.host.check_output(lines)))

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; a refused connection counts as not yet.

        Raises:
            AssertionError: It did not hold in time; the message has ``what``, the containers and their last log lines.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.5)
        logs = self.host.run(f"docker ps --all; cd {self.directory} && docker compose logs --tail 20").stdout
        raise AssertionError(f"not within {PATIENCE_S} s: {what}\n{logs}")


def assert_nothing_lost(load: Load) -> None:
    """Assert that every request of a load, whose block has ended, was answered well."""
    report = load.report()
    print(
        f"{report.ok} of {report.planned} answered, p99 {report.latency.p99 * 1000:.0f} ms, by {len(report.containers)}"
    )
    assert report.failures() == {}, report.examples
    assert report.ok == report.planned > 0
