"""The API process: moto's EC2 on 127.0.0.1, with containers behind it."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rehearsal import ACCOUNT_ID, docker
from rehearsal.errors import RehearsalError
from rehearsal.state import Settings, State

if TYPE_CHECKING:
    from rehearsal.fleet import Fleet

AMIS = Path(__file__).with_name("amis.json")

HOME = "/rehearsal"
"""Path under which the rehearsal itself answers, beside the AWS API."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def configure_moto() -> None:
    """Set moto's options; it reads them when it is imported."""
    os.environ.update(
        MOTO_ACCOUNT_ID=ACCOUNT_ID,
        MOTO_AMIS_PATH=str(AMIS),
        MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION="1",
        MOTO_ENABLE_KEYPAIR_VALIDATION="1",
        MOTO_ENABLE_AMI_VALIDATION="1",
    )


def report(fleet: Fleet) -> list[dict[str, Any]]:
    """Describe all instances for ``status``.

    Args:
        fleet: The containers.

    Returns:
        One dictionary per instance.
    """
    from rehearsal.patches import MotoInstance, all_instances

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


def with_home(application: Application, settings: Settings, fleet: Fleet) -> Application:
    """Put the rehearsal's own pages in front of moto.

    Args:
        application: moto's WSGI application.
        settings: The rehearsal.
        fleet: The containers.

    Returns:
        A WSGI application.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/moto-api/reset":
            # moto would forget its instances without terminating them.
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"use: python -m rehearsal reset\n"]
        if path != HOME:
            return application(environ, start_response)
        if environ["REQUEST_METHOD"] == "PUT":
            length = int(environ.get("CONTENT_LENGTH") or 0)
            fleet.image = json.loads(environ["wsgi.input"].read(length))["image"]
        known = {
            "name": settings.name,
            "token": settings.token,
            "pid": os.getpid(),
            "image": fleet.image,
            "instances": report(fleet),
        }
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(known).encode()]

    return answer


def serve(settings: Settings) -> None:
    """Answer requests until the process is told to end.

    Args:
        settings: The rehearsal.
    """
    configure_moto()
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    from rehearsal.fleet import Fleet
    from rehearsal.patches import install

    fleet = Fleet(settings)
    install(fleet)
    application = with_home(DomainDispatcherApplication(create_backend_app), settings, fleet)
    server = make_server("127.0.0.1", settings.port, application, threaded=True, request_handler=MotoRequestHandler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=fleet.watch, daemon=True).start()
    server.serve_forever()


def end(signum: int, frame: FrameType | None) -> None:
    """End at once, with the docker clients: state is in memory only and the command line removes the containers.

    Args:
        signum: The signal.
        frame: Where it came.
    """
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main(arguments: list[str]) -> int:
    """Run the API process.

    Args:
        arguments: The rehearsal's name.

    Returns:
        Exit code.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    settings = State.of(arguments[0]).load()
    if settings is None:
        raise RehearsalError("started without settings; use: python -m rehearsal up")
    docker.require_image(settings.image)
    serve(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
