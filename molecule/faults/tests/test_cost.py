"""What security costs: the hardened stack compared with one as people first write it, and HTTPS with HTTP."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.faults.lab import SIDE_PORT, Lab
from bench.faults.rows import Book, Row
from bench.playbook import playbook
from tests.project import ROOT, load_mapping

ROUNDS = 20
ROUND_S = 4
"""Rounds are short and many, because the machine's other load changes from minute to minute and must hit both sides."""
CLIENTS = 12
HANDSHAKES_S = 10
PLAIN = "/tmp/plain"  # noqa: S108 (on the instance)
SERVED = load_mapping(ROOT / "roles/certificate/defaults/main.yml")["certificate_directory"] + "/served/live"

LINES = re.compile(
    r"^\s*(add_header|limit_req|limit_conn|large_client_header_buffers|client_(header|body)_timeout|send_timeout|"
    r"client_max_body_size|server_tokens|proxy_hide_header|proxy_set_header \S+ \"\").*;\n",
    re.MULTILINE,
)
"""The lines of nginx.conf that are there for security alone."""
KEYS = ["cap_drop", "memswap_limit", "read_only", "security_opt", "tmpfs", "ulimits"]
"""The keys of a service in compose.yml that are there for security alone."""


@dataclass
class Side:
    """One of two ways to serve the app whose costs are compared.

    Attributes:
        url: Where it answers.
        containers: Full ids of nginx and the replicas, whose CPU time is counted.
        authorities: File with the certificates to trust with https; those of the system when empty.
        first: A command that is run on the instance before each round.
        rates: Requests per second, one for each round.
        cpu: CPU time of the containers for a request in microseconds, one for each round.
    """

    name: str
    url: str
    containers: list[str]
    authorities: str = ""
    first: str = "true"
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, lab: Lab) -> None:
        """Measure one round."""
        lab.host.check_output(self.first)
        before = lab.inside("cpu", *self.containers)["seconds"]
        rate = lab.throughput(self.url, CLIENTS, ROUND_S, self.authorities)
        used = lab.inside("cpu", *self.containers)["seconds"] - before
        self.rates.append(rate)
        self.cpu.append(used / (rate * ROUND_S) * 1e6)


def _compare(lab: Lab, row: Row, side: Side, other: Side) -> float:
    """Measure two sides in turn, note the figures, and return the median ratio of their throughputs."""
    for number in range(ROUNDS):
        for one in (side, other) if number % 2 else (other, side):
            one.measure(lab)
    for one in (side, other):
        row.figure(f"requests/s, {one.name}", ", ".join(f"{rate:.0f}" for rate in one.rates))
        row.figure(f"CPU of nginx and the replicas for a request, {one.name} (µs)", median(one.cpu))
    return median(rate / beside for rate, beside in zip(side.rates, other.rates, strict=True))


@contextmanager
def _plain_stack(lab: Lab) -> Iterator[list[str]]:
    """Run the same images beside the stack without the hardening, and return the full ids of the containers."""
    folder = lab.stack.directory
    stack = json.loads(lab.host.check_output(f"cd {folder} && docker compose config --format json"))
    networks = [network["name"] for network in stack["networks"].values()]
    for service in stack["services"].values():
        for key in KEYS:
            service.pop(key, None)
        service["networks"] = {"default": None}
    nginx = stack["services"]["nginx"]
    nginx["ports"][0]["published"] = str(SIDE_PORT)
    nginx["volumes"][0]["source"] = f"{PLAIN}/nginx"
    conf = LINES.sub("", lab.host.check_output(f"cat {folder}/nginx/nginx.conf"))
    for network in networks:
        conf = conf.replace(f'"{network}"', '"plain_default"')
    lab.write(f"{PLAIN}/nginx/nginx.conf", conf)
    lab.write(f"{PLAIN}/compose.json", json.dumps(stack | {"name": "plain", "networks": {"default": {}}}))
    compose = f"docker compose --file {PLAIN}/compose.json"
    lab.open_port(SIDE_PORT)
    lab.host.check_output(f"{compose} up --detach --wait")
    try:
        yield lab.host.check_output(f"{compose} ps --quiet --no-trunc").split()
    finally:
        lab.host.check_output(f"{compose} down; rm -r {PLAIN}; systemctl restart firewall")


def test_hardening(lab: Lab, book: Book) -> None:
    """The cost of the safe defaults must not be a reason to switch them off."""
    with book.row("hardened beside plain: nginx.conf, containers, networks, firewall") as row:
        containers = _ids(lab, "nginx", "app")
        with _plain_stack(lab) as plain_containers:
            ours = Side("hardened", lab.url, containers, first="systemctl start firewall")
            url = f"http://{lab.stack.address}:{SIDE_PORT}/"
            plain = Side("plain", url, plain_containers, first="systemctl stop firewall")
            ratio = _compare(lab, row, ours, plain)
        row.least("throughput ÷ plain's", ratio, 0.97)


def _ids(lab: Lab, *names: str) -> list[str]:
    return [container["Id"] for name in names for container in lab.stack.inspect(name)]


def _handshakes(address: str, kind: str) -> float:
    """Count the handshakes per second of one client, each with a connection of its own."""
    command = ["openssl", "s_time", "-connect", f"{address}:443", f"-{kind}", "-time", str(HANDSHAKES_S)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (counted,) = re.findall(r"^(\d+) connections in \d+ real seconds", said, re.MULTILINE)
    return int(counted) / HANDSHAKES_S


def test_https(lab: Lab, book: Book, tmp_path: Path) -> None:
    """The same configuration is measured with a certificate and without."""
    with book.row("HTTPS beside HTTP") as row:
        conf = lab.host.check_output(f"cat {lab.stack.directory}/nginx/nginx.conf")
        deployed = playbook("site.yml", "--extra-vars", "certificate_mode=self_signed")
        assert deployed.ok, deployed.said
        trusted = tmp_path / "certificate.pem"
        trusted.write_text(lab.host.check_output(f"cat {SERVED}/fullchain.pem") + "\n")
        with lab.beside_nginx(conf) as url:
            side = lab.host.check_output("docker ps --quiet --no-trunc --filter name=beside-nginx").split()
            https = Side("HTTPS", f"https://{lab.stack.address}/", _ids(lab, "nginx", "app"), str(trusted))
            ratio = _compare(lab, row, https, Side("HTTP", url, [*side, *_ids(lab, "app")]))
        row.figure("HTTPS ÷ HTTP, kept connections", ratio)
        row.figure("handshakes/s of one client, new", _handshakes(lab.stack.address, "new"))
        row.figure("handshakes/s of one client, resumed", _handshakes(lab.stack.address, "reuse"))
