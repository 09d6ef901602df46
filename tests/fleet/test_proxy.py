"""What nginx is told: which replicas get requests, where they listen, and which container stands in for it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from fleet.engine.base import Answer, Plan, Port, Replica, Service, State
from fleet.engine.compose import Compose
from fleet.proxy import ADMITTED, GATE_S, PORTS, Proxy
from fleet.release import Releases
from fleet.system import FleetError
from tests.fake_docker import Docker


class Engine(Compose):
    def __init__(self, directory: Path) -> None:
        super().__init__(Releases(directory))
        self.running: dict[str, Replica] = {}
        self.answers: dict[str, Answer] = {}
        self.stopped: list[str] = []
        self.port = Port("127.0.0.1", "7151", "80")

    def replicas(self, ids: Sequence[str] | None = None) -> list[Replica]:
        return [one for name, one in self.running.items() if ids is None or name in ids]

    def execute(self, container: str, command: Sequence[str]) -> Answer:
        return self.answers.get(f"{container} {command[0]}", Answer(1, "no such command"))

    def stop(self, ids: Sequence[str]) -> None:
        self.stopped += ids

    def standby(self) -> str:
        return "standby"

    def published(self) -> list[Port]:
        return [self.port]

    def address_of(self, container: str) -> str:
        return {"standby": "172.19.0.9"}[container]


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    (tmp_path / "nginx").mkdir()
    return Engine(tmp_path)


@pytest.fixture
def ours(engine: Engine, tmp_path: Path) -> Proxy:
    return Proxy(engine, tmp_path)


def replica(name: str, *addresses: str, service: str = "app", port: str = "5000") -> Replica:
    return Replica(id=name, name=name, service=service, addresses=frozenset(addresses), port=port)


def state(services: Mapping[str, tuple[str, Sequence[Replica]]], *orphans: Replica) -> State:
    known = {name: Service(Plan(1, "image", port=port), tuple(those)) for name, (port, those) in services.items()}
    return State(known, tuple(orphans))


def test_nginx_is_told_the_ports_of_what_runs_and_of_what_is_to_come(ours: Proxy, tmp_path: Path) -> None:
    services = {
        "nginx": ("", [replica("nginx", service="nginx", port="")]),
        "app": ("5000", [replica("app", port="28255")]),
        "api": ("5001", []),
    }
    ours.note_ports(state(services, replica("old", service="old", port="10001")))
    told = json.loads((tmp_path / PORTS).read_text())
    assert told == {"nginx": [], "app": [5000, 28255], "api": [5001], "old": [10001]}


def test_only_a_roll_out_keeps_containers_from_nginx(engine: Engine, ours: Proxy, tmp_path: Path) -> None:
    engine.running = {
        "old": replica("old", "172.18.0.2"),
        "new": replica("new", "172.18.0.3", "172.19.0.3"),
        "crashing": replica("crashing"),
    }
    assert ours.unadmitted(engine.replicas()) == set()
    ours.gate_traffic({"new", "crashing"})
    told = json.loads((tmp_path / ADMITTED).read_text())
    assert told["addresses"] == ["172.18.0.2"]
    assert 0 < told["until_time"] - time.time() <= GATE_S
    assert ours.unadmitted(engine.replicas()) == {"new", "crashing"}
    ours.open_gate()
    ours.open_gate()
    assert ours.unadmitted(engine.replicas()) == set()


@pytest.mark.parametrize("answer", [Answer(1, '{"services": {}}'), Answer(0, "an error page"), None])
def test_nginx_that_does_not_answer_knows_nothing(engine: Engine, ours: Proxy, answer: Answer | None) -> None:
    if answer:
        engine.answers["nginx balancer-status"] = answer
    assert ours.status() == {}
    engine.answers["nginx balancer-status"] = Answer(0, '{"services": {"app": {}}}\n')
    assert ours.status() == {"services": {"app": {}}}


def test_configuration_that_nginx_does_not_read_is_told(engine: Engine, ours: Proxy) -> None:
    engine.answers["nginx reload"] = Answer(1, "[emerg] unknown directive\n")
    with pytest.raises(FleetError, match=r"does not reload its configuration: \[emerg\] unknown directive$"):
        ours.reload()
    engine.answers["nginx reload"] = Answer(0, "")
    ours.reload()


def test_nginx_of_an_older_release_is_stopped_though_it_cannot_drain_its_clients(engine: Engine, ours: Proxy) -> None:
    ours.drain(["old"])
    assert engine.stopped == ["old"]


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    program = Docker(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin" / "docker").rename(tmp_path / "bin" / "nft")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    return program


@pytest.mark.parametrize(("address", "asked"), [("0.0.0.0", ""), ("127.0.0.1", "ip daddr 127.0.0.1 ")])  # noqa: S104
def test_only_what_is_published_is_led_to_who_stands_in(
    engine: Engine, ours: Proxy, nft: Docker, address: str, asked: str
) -> None:
    engine.port = Port(address, "1", "80")
    assert not ours.divert(), "nobody listens there"
    ((script,),) = nft.asked()
    lines = script.splitlines()
    assert lines[:3] == ["add table ip standby", "delete table ip standby", "add table ip standby"]
    assert [line for line in lines if line.startswith("add rule")] == [
        f"add rule ip standby {chain} fib daddr type local {asked}tcp dport 1 dnat to 172.19.0.9:80"
        for chain in ("prerouting", "output")
    ]


def test_it_serves_where_the_machine_gets_a_connection(engine: Engine, ours: Proxy, nft: Docker) -> None:
    """With the engine's userland proxy the kernel cannot divert the machine's own connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        engine.port = Port("0.0.0.0", str(server.getsockname()[1]), "80")  # noqa: S104
        assert ours.divert()
    assert nft.asked()


@pytest.mark.parametrize("is_root", [True, False])
def test_rules_go_before_who_stands_in(
    engine: Engine, ours: Proxy, nft: Docker, monkeypatch: pytest.MonkeyPatch, is_root: bool
) -> None:
    """Connections would lead nowhere otherwise; without root there are no rules."""
    monkeypatch.setattr("os.geteuid", lambda: 0 if is_root else 1000)
    asked_at_the_stop: list[Sequence[str]] = []
    monkeypatch.setattr(engine, "stop", lambda _: asked_at_the_stop.extend(nft.asked()))
    engine.running["standby"] = replica("standby")
    assert ours.has_standby()
    ours.end_diversion()
    assert asked_at_the_stop[-2:] == (
        [["list", "table", "ip", "standby"], ["delete table ip standby"]] if is_root else []
    )
    engine.running.clear()
    # Led to a container that is gone.
    assert ours.has_standby() == is_root
    nft.answer("list table", status=1)
    assert not ours.has_standby()
