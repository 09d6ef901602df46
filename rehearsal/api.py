"""The API process: moto's EC2 on 127.0.0.1, with containers behind it.

moto reads its options from the environment when it is imported, so ``daemon`` sets them when it starts this module.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from rehearsal import CHECKIP, FAULTS, HOME, UNREADABLE, docker, metadata, network
from rehearsal.account import PLAN_TARGET, plan_state
from rehearsal.adapter import MotoImage, MotoInstance, all_instances, guests, own_images
from rehearsal.errors import RehearsalError
from rehearsal.faults import fault_from
from rehearsal.firewall import Firewall
from rehearsal.fleet import Fleet
from rehearsal.front import Application, Front, Recorder
from rehearsal.images import Disk
from rehearsal.instance import machine_again
from rehearsal.patches import install
from rehearsal.policy import Policy
from rehearsal.rules import METADATA_PORT
from rehearsal.state import CHANGES, Settings, State
from rehearsal.store import Memory, Store, UnreadableError, backends, put_back, read
from rehearsal.subjects import subject_at

LOG = logging.getLogger(__name__)


def report() -> list[dict[str, Any]]:
    """Describe each instance for ``status``."""
    return [
        {
            "id": instance.id,
            "type": instance.instance_type,
            "state": instance.state,
            "address": instance.public_ip or instance.private_ip,
            "vcpus": MotoInstance(instance).size.vcpus,
            "memory": MotoInstance(instance).size.memory,
            "since": instance.launch_time.isoformat(timespec="seconds"),
            "reason": instance.state_reason.message,
        }
        for instance in all_instances()
    ]


def _body(environ: dict[str, Any]) -> Any:
    return json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"null")


def fault_page(environ: dict[str, Any], start_response: Callable[..., Any], fleet: Fleet) -> list[bytes]:
    """Let the command line add, list and clear faults over WSGI; the answer is JSON."""
    said: dict[str, Any] = {"token": fleet.settings.token}
    body = _body(environ)
    try:
        match environ["REQUEST_METHOD"]:
            case "POST":
                fault = fault_from(body)
                if fault.kind == "terminate" and fault.instance:
                    fleet.reclaim(fault.instance, fault.after)
                else:
                    fleet.faults.add(fault)
                said["added"] = fault.line()
            case "DELETE":
                said["cleared"] = fleet.faults.clear(body or ())
        said["faults"] = fleet.faults.lines()
        fleet.changed(False)
    except RehearsalError as error:
        said["error"] = str(error)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]


def with_plan(application: Application, account: str) -> Application:
    """Answer for the account's plan, which moto does not know."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("HTTP_X_AMZ_TARGET") != PLAN_TARGET:
            return application(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/x-amz-json-1.0")])
        return [json.dumps(plan_state(account)).encode()]

    return answer


def change(fleet: Fleet, wanted: dict[str, Any]) -> dict[str, str]:
    """Change what can be changed of a running rehearsal; what went wrong is returned as ``error``."""
    fleet.settings = replace(fleet.settings, **wanted)
    try:
        fleet.changed(False)
    except RehearsalError as error:
        return {"error": str(error)}
    return {}


def with_home(application: Application, settings: Settings, fleet: Fleet) -> Application:
    """Put the rehearsal's own pages in front of moto's WSGI application."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/moto-api/reset":
            # moto would forget its instances without terminating them.
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"use: python -m rehearsal reset\n"]
        if path == CHECKIP:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"{fleet.settings.controller or network.parse_network(settings.network)[1]}\n".encode()]
        if path == FAULTS:
            return fault_page(environ, start_response, fleet)
        if path != HOME:
            return application(environ, start_response)
        known: dict[str, Any] = {"name": settings.name, "token": settings.token, "pid": os.getpid()}
        if environ["REQUEST_METHOD"] == "PUT":
            known |= change(fleet, _body(environ))
        known |= {one: getattr(fleet.settings, one) for one in CHANGES} | {"instances": report()}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(known).encode()]

    return answer


class Keeper:
    """Enforces and keeps every change before a client learns of it."""

    def __init__(self, settings: Settings) -> None:
        """Start with no instances; ``resume`` brings back those of an earlier process."""
        self._firewall = Firewall(settings, guests, lambda: self.fleet.settings.controller)
        self._store = Store(State.of(settings.name).memory, self._memory)
        self.fleet = Fleet(settings, self.changed)

    def changed(self, anew: bool = False) -> None:
        """Keep and enforce a change; ``anew`` tells that an instance is about to boot.

        Raises:
            FirewallError: The security groups could not be enforced.
        """
        self._store.save()
        self._firewall.sync(anew)

    def _memory(self) -> Memory:
        machines = {name: machine.kept() for name, machine in list(self.fleet.machines.items())}
        return Memory(backends(), machines, dict(self.fleet.launched), {"faults": self.fleet.faults.kept()})

    def resume(self, memory: Memory) -> None:
        """Go on where a killed API process stopped, with what it kept."""
        settings, fleet = self.fleet.settings, self.fleet
        put_back(memory.backends)
        fleet.launched.update(memory.launched)
        fleet.faults.restore(memory.more.get("faults", ()))
        self._firewall.sync(anew=True)
        again = {name: machine_again(settings, kept) for name, kept in memory.machines.items()}
        known = {name for machine in again.values() for name in (machine.container, machine.volume)}
        for image in own_images():
            if image.state == "pending":
                MotoImage(image).become("failed")
            known.add(Disk(settings, image.id).volume)
        removed = docker.remove_unknown(settings.name, known)
        if removed:
            LOG.warning("removed what no instance owns: %s", ", ".join(removed))
        for instance in all_instances():
            if instance.id in again:
                fleet.adopt(MotoInstance(instance), again[instance.id])
        self.changed()


def serve(settings: Settings) -> None:
    """Answer requests until the process is told to end.

    Raises:
        UnreadableError: What an earlier process kept cannot be used.
    """
    memory = read(State.of(settings.name).memory)
    keeper = Keeper(settings)
    fleet = keeper.fleet
    install(fleet)
    keeper.resume(memory)
    moto = DomainDispatcherApplication(create_backend_app)

    def policy() -> Policy:
        return Policy(fleet.settings.policy)

    front = Front(
        with_plan(moto, settings.account), keeper.changed, fleet.faults, Recorder(State.of(settings.name).calls), policy
    )
    application = with_home(front, settings, fleet)
    server = make_server("127.0.0.1", settings.port, application, threaded=True, request_handler=MotoRequestHandler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=fleet.watch, daemon=True).start()
    gateway = str(network.parse_network(settings.network)[1])
    about = metadata.server(
        gateway, METADATA_PORT, metadata.Service(settings.token, partial(subject_at, fleet.machines))
    )
    threading.Thread(target=about.serve_forever, daemon=True).start()
    server.serve_forever()


def end(_signum: int, _frame: FrameType | None) -> None:
    """End at once, with the docker clients: state is in memory only and the command line removes the containers."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run the API process of the rehearsal that the only argument names, and return its exit code.

    Raises:
        RehearsalError: There are no settings of the rehearsal, or moto's options are not in the environment.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    settings = State.of(arguments[0]).load()
    if settings is None or "MOTO_AMIS_PATH" not in os.environ:
        raise RehearsalError("started without settings; use: python -m rehearsal up")
    try:
        serve(settings)
    except UnreadableError as error:
        print(error, file=sys.stderr)
        return UNREADABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
