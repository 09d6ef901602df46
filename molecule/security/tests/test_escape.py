"""What an attacker in a replica can do; each attempt that is refused there works elsewhere in the same test."""

from __future__ import annotations

import base64
import json
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from bench.render import Renderer, machine
from bench.stack import Stack
from tests.project import ROOT, SERVICE

INTRUDER = (ROOT / "tests/intruder.py").read_bytes()
METADATA = "169.254.169.254:80"
NEIGHBOUR = "neighbour"
"""Project and only service of a stack beside the one under test, from the same template; it may reach the internet."""
REACHED = ""
READY = '"ready":true'

Try = Callable[..., Any]


def _python(host: Host, where: str) -> Try:
    """Return a function that runs the intruder's functions behind a command such as docker exec."""

    def attempt(function: str, *arguments: str) -> Any:
        # Encoded, because Ansible would take braces in a command for a template.
        text, words = base64.b64encode(INTRUDER).decode(), shlex.join(["python3", "-", function, *arguments])
        return json.loads(host.check_output(f"echo {text} | base64 -d | {where} {words}"))

    return attempt


def _addresses(container: dict[str, Any]) -> dict[str, str]:
    """Return a container's addresses by network, in the order of the networks' names."""
    networks: dict[str, dict[str, str]] = container["NetworkSettings"]["Networks"]
    return {name: one["IPAddress"] for name, one in sorted(networks.items())}


def _port(container: dict[str, Any]) -> str:
    variables = dict(one.split("=", 1) for one in container["Config"]["Env"])
    return str(variables["PORT"])


@contextmanager
def _neighbour(host: Host, replica: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Start another service that has a way out, as the template describes one."""
    render = Renderer(ROOT / "roles")
    service = SERVICE | {"name": NEIGHBOUR, "replicas": 1, "internet": True}
    image = replica["Config"]["Image"]
    text = render(
        "stack",
        "compose.yml.j2",
        stack_name=NEIGHBOUR,
        stack_services=[service],
        stack_images={NEIGHBOUR: image, "nginx": image},
        __stack_machine=machine(),
    )
    defined = yaml.safe_load(text)["services"][NEIGHBOUR]
    (server,) = [Path("/run") / volume["source"] for volume in defined["volumes"]]
    (known,) = [mount["Source"] for mount in replica["Mounts"] if mount["Type"] == "bind"]
    # The replica's own, but for the port.
    port = f"s/{_port(replica)}/{defined['environment']['PORT']}/"
    host.check_output(f"mkdir -p {server} && sed {port} {known}/gunicorn.conf.py > {server}/gunicorn.conf.py")
    encoded = base64.b64encode(text.encode()).decode()
    compose = f"echo {encoded} | base64 -d | docker compose --project-directory /run --file -"
    try:
        host.check_output(f"{compose} up --detach --wait --no-deps {NEIGHBOUR}")
        (found,) = json.loads(host.check_output(f"docker inspect $({compose} ps --quiet {NEIGHBOUR})"))
        yield found
    finally:
        host.check_output(f"{compose} down --timeout 1; rm -r {server}")


@dataclass(frozen=True)
class Scene:
    """The containers, as the engine inspects them, and an intruder in a replica of each service and elsewhere.

    The nginx container has no Python, so a process of the machine in the container's network takes its part.
    """

    nginx: dict[str, Any]
    replica: dict[str, Any]
    neighbour: dict[str, Any]
    in_replica: Try
    in_neighbour: Try
    at_nginx: Try
    on_machine: Try

    @property
    def nginx_addresses(self) -> list[str]:
        """The addresses where nginx listens, that of the replica's network first."""
        shared = _addresses(self.replica).keys()
        return [f"{one}:80" for name, one in sorted(_addresses(self.nginx).items(), key=lambda at: at[0] not in shared)]

    @property
    def replica_address(self) -> str:
        """The address where the replica's server listens."""
        (address,) = _addresses(self.replica).values()
        return f"{address}:{_port(self.replica)}"


@pytest.fixture(scope="module")
def scene(host: Host, stack: Stack) -> Iterator[Scene]:
    """Look at the stack once, because each question to the instance takes a second."""
    nginx, replica = stack.inspect("nginx")[0], stack.inspect("app")[0]
    with _neighbour(host, replica) as neighbour:
        yield Scene(
            nginx,
            replica,
            neighbour,
            in_replica=_python(host, f"docker exec -i {replica['Id']}"),
            in_neighbour=_python(host, f"docker exec -i {neighbour['Id']}"),
            at_nginx=_python(host, f"nsenter --net --target {nginx['State']['Pid']}"),
            on_machine=_python(host, ""),
        )


@pytest.fixture
def world(host: Host) -> Iterator[str]:
    """Listen on this machine, which is outside of the instance, and return the address that a test connects to."""
    gateway = host.check_output("ip -4 route show default").split()[2]
    with closing(socket.create_server(("0.0.0.0", 0))) as listener:  # noqa: S104 (asked from the instance)
        yield f"{gateway}:{listener.getsockname()[1]}"


def _reached(tried: dict[str, str]) -> set[str]:
    return {target for target, error in tried.items() if error == REACHED}


def test_files_are_made_in_memory_only(host: Host, scene: Scene) -> None:
    """No file stays, and no program that runs can be changed."""
    assert scene.in_replica("writable") == ["/dev/mqueue", "/dev/shm", "/tmp"]  # noqa: S108 (in a container)
    image = scene.replica["Config"]["Image"]
    unconfined = _python(host, f"docker run --rm -i --user 0 --network none --entrypoint= {image}")
    assert {"/", "/usr/bin", "/srv/app"} <= set(unconfined("writable"))


def test_nothing_is_gained(scene: Scene) -> None:
    """A process in a replica gets no capability, no device, and no program that was not there before."""
    assert _reached(scene.in_replica("gain", "/tmp")) == set()  # noqa: S108 (in a container)
    tried = scene.on_machine("gain", "/root")
    assert _reached(tried) == tried.keys()


def test_a_replica_reaches_nobody(host: Host, stack: Stack, scene: Scene, world: str) -> None:
    """Metadata service, the machine's ports, other networks, the internet and the engine's socket are out of reach."""
    networks = json.loads(host.check_output(f"docker network inspect {' '.join(_addresses(scene.replica))}"))
    gateways = [f"{one['IPAM']['Config'][0]['Gateway']}:22" for one in networks]
    others = [f"{address}:{_port(scene.neighbour)}" for address in _addresses(scene.neighbour).values()]
    machine = [f"{address}:22" for address in host.check_output("hostname --all-ip-addresses").split()]
    targets = [METADATA, world, f"{stack.address}:80", *scene.nginx_addresses[1:], *others, *machine]
    # What it does reach, because who reaches nobody at all is refused everything.
    allowed = {scene.nginx_addresses[0], scene.replica_address}
    assert _reached(scene.in_replica("reach", *targets, *gateways, *allowed)) == allowed
    # In a service's own network the machine has no address.
    hidden_from_the_machine = {others[0]}
    worked = _reached(scene.on_machine("reach", *targets))
    assert worked >= {*targets, "/run/docker.sock"} - hidden_from_the_machine
    assert scene.replica_address in _reached(scene.at_nginx("reach", scene.replica_address))


def test_a_service_with_a_way_out_is_as_far_from_the_others(scene: Scene, world: str) -> None:
    """It reaches the internet, which it asked for, and nothing more."""
    assert world in _reached(scene.in_neighbour("reach", world))
    targets = [scene.replica_address, *scene.nginx_addresses]
    # What leaves for the internet may be answered there, whatever the address: only the answer tells who gave it.
    answers = scene.in_neighbour("ask", *targets), scene.at_nginx("ask", *targets)
    replies = [[target for target in targets if READY in some[target]] for some in answers]
    assert replies == [[], targets]
