"""nginx in front of a stack: what it knows, which replicas it may use, and how another one stands in for it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from fleet.engine.base import NGINX, Engine, Port, Replica, State
from fleet.system import FleetError, attempt, run, write

ADMITTED = "nginx/admitted.json"
"""Where balancer.lua reads which addresses may get requests while a roll-out tries a version."""
PORTS = "nginx/ports.json"
"""Where balancer.lua reads the ports that replicas of a service may have: a roll-out may change it."""
GATE_S = 30
"""How long nginx goes by it after a roll-out was killed; one that lives renews it at every look."""
CLOSING_S = 60
"""How long nginx, before it ends, asks clients to go on over new connections, if it does not end after all."""
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 (only compared)


class Proxy:
    """The nginx of the stack in one folder."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        """Say where its files are, and which engine runs it."""
        self._engine = engine
        self._directory = directory

    def status(self) -> dict[str, Any]:
        """Ask the nginx that gets new connections what it knows; empty when none runs."""
        standby = self._engine.standby()
        return (self._is_diverted(standby) and self._status_of(standby)) or self._status_of(NGINX)

    def _status_of(self, container: str) -> dict[str, Any]:
        try:
            answer = self._engine.execute(container, ["balancer-status", "--always"])
            status: dict[str, Any] = json.loads(answer.text) if answer.status == 0 else {}
        except (FleetError, ValueError):
            return {}
        return status

    def reload(self) -> None:
        """Have nginx read its configuration; it goes on with the old one where it cannot."""
        answer = self._engine.execute(NGINX, ["reload"])
        if answer.status:
            raise FleetError(f"nginx does not reload its configuration: {answer.text.strip()}")

    def gate_traffic(self, on_trial: Collection[str]) -> None:
        """Have nginx send requests only to the containers that run now, without those on trial."""
        allowed = [one for one in self._engine.replicas() if one.id not in on_trial]
        listed = sorted(frozenset().union(*(one.addresses for one in allowed)))
        write(self._directory / ADMITTED, json.dumps({"until_time": time.time() + GATE_S, "addresses": listed}))

    def open_gate(self) -> None:
        """Have nginx send requests to all that are ready."""
        (self._directory / ADMITTED).unlink(missing_ok=True)

    def unadmitted(self, replicas: Collection[Replica]) -> set[str]:
        """Pick those that nginx may not send requests to yet; none while it may send them to all."""
        note = self._directory / ADMITTED
        if not note.exists():
            return set()
        said = json.loads(note.read_text())
        if said["until_time"] < time.time():
            return set()
        return {one.id for one in replicas if one.addresses.isdisjoint(said["addresses"])}

    def note_ports(self, state: State) -> None:
        """Tell nginx where the replicas of each service may listen: those that run, and those of a release to come."""
        ports = {name: {one.plan.port} for name, one in state.services.items()}
        running = [replica for one in state.services.values() for replica in one.replicas]
        for one in (*running, *state.orphans):
            ports.setdefault(one.service, set()).add(one.port)
        listed = {name: sorted(int(one) for one in of_one if one) for name, of_one in ports.items()}
        (self._directory / "nginx").mkdir(exist_ok=True)
        write(self._directory / PORTS, json.dumps(listed))

    def divert(self) -> bool:
        """Lead new connections to the container beside nginx. Open ones stay where they are.

        Two containers cannot publish one port, so the kernel is told to send what comes for that port to this one,
        before the engine's own rules are asked. It tells whether that works, which it does not with the engine's
        userland proxy: that leaves the kernel no way from the loopback to a container.
        """
        name, ports = self._engine.standby(), self._engine.published()
        run(["nft", _diversion(name, ports, self._engine.address_of(name))])
        return _connects(ports[0])

    def end_diversion(self) -> None:
        """Lead new connections to nginx itself again, and remove the container beside it once it has finished."""
        name = self._engine.standby()
        if self._is_diverted(name):
            run(["nft", f"delete table ip {name}"])
        if self._engine.replicas([name]):
            self.drain([name])

    def has_standby(self) -> bool:
        """Tell whether a container stands in for nginx, or connections are led to one, also when it is gone."""
        name = self._engine.standby()
        return bool(self._engine.replicas([name])) or self._is_diverted(name)

    def drain(self, containers: Sequence[str]) -> None:
        """Have the clients of nginx go on over new connections, which are led elsewhere by now, and remove it."""
        for container in containers:
            # An nginx of an older release cannot do this.
            self._engine.execute(container, ["drain-clients", str(CLOSING_S)])
        self._engine.stop(containers)

    def _is_diverted(self, name: str) -> bool:
        return can_divert() and not attempt(["nft", "list", "table", "ip", name]).returncode


def can_divert() -> bool:
    """Tell whether this process may change where the kernel sends connections: it is root's, and nft is there."""
    return os.geteuid() == 0 and shutil.which("nft") is not None


def _connects(port: Port) -> bool:
    """Tell whether somebody on this machine gets a connection to a published port within a second."""
    host = "127.0.0.1" if port.address == EVERY_ADDRESS else port.address
    try:
        socket.create_connection((host, int(port.published)), timeout=1).close()
    except OSError:
        return False
    return True


def _diversion(table: str, ports: Sequence[Port], address: str) -> str:
    """Write the rules that lead new connections for published ports to an address, as one transaction for nft."""
    lines = [f"add table ip {table}", f"delete table ip {table}", f"add table ip {table}"]
    for chain in ("prerouting", "output"):
        # Before the engine's rules, at -100, because the first that matches counts; after those of the firewall, at
        # -110, which have to see the port that was asked for.
        lines.append(f"add chain ip {table} {chain} {{ type nat hook {chain} priority -105; }}")
        for port in ports:
            asked = "" if port.address == EVERY_ADDRESS else f"ip daddr {port.address} "
            led = f"tcp dport {port.published} dnat to {address}:{port.target}"
            lines.append(f"add rule ip {table} {chain} fib daddr type local {asked}{led}")
    return "\n".join(lines)
