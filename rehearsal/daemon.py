"""Starts and stops the API process, whatever was killed without warning before."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rehearsal import ACCOUNT_ID, FAULTS, HOME, UNREADABLE, docker, firewall, network
from rehearsal.errors import RehearsalError
from rehearsal.state import CHANGES, DEFAULT_NETWORK, DEFAULT_PORT, Settings, State, locked

IMAGE_REPOSITORY = "flask-fleet/instance"

API_MODULE = "rehearsal.api"

FIXED = ("port", "network", "account", "quotas")
"""What `up` cannot change while a rehearsal runs."""

START_LIMIT = 60.0
"""Seconds for the API process to answer; importing moto takes a few on a busy machine."""

END_LIMIT = 5.0
"""Seconds for the API process to end."""


class UnreadableStateError(RehearsalError):
    """The API process cannot use what an earlier one kept."""


def ask(settings: Settings, method: str = "GET", body: Any = None, path: str = HOME) -> dict[str, Any] | None:
    """Send a request to an API process, with a body as JSON, and make sure that it is the expected one.

    ``PUT`` changes what can be changed. The result is None when nobody answers or somebody else does.
    """
    data = None if body is None else json.dumps(body)
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=5)
    try:
        connection.request(method, path, data)
        said = json.load(connection.getresponse())
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return said if isinstance(said, dict) and said.get("token") == settings.token else None


def running(name: str) -> tuple[Settings, dict[str, Any]] | None:
    """Find a rehearsal's settings and what its API process says; None when it does not run."""
    settings = State.of(name).load()
    said = ask(settings) if settings else None
    return (settings, said) if settings and said else None


def faults(name: str, method: str, body: Any = None) -> dict[str, Any]:
    """List (``GET``), add (``POST``) or clear (``DELETE``) faults of a rehearsal.

    ``body`` is the fault, or the numbers of those to clear.

    Raises:
        RehearsalError: The rehearsal does not run, or refuses.
    """
    found = running(name)
    said = ask(found[0], method, body, FAULTS) if found else None
    if said is None:
        raise RehearsalError(f"rehearsal {name!r} is not running; start it: python -m rehearsal --name {name} up")
    if "error" in said:
        raise RehearsalError(said["error"])
    return said


def up(name: str, **wanted: Any) -> str:
    """Start a rehearsal, or find it running, and say so in one line.

    ``wanted`` are fields of ``Settings``; those that are missing are as they were, or the default.

    Raises:
        RehearsalError: It cannot be started, or runs with another port, network, account or quotas.
    """
    with locked():
        found = running(name)
        if found:
            return _already(found[0], found[1], wanted)
        begin = time.monotonic()
        kept = _resumable(name, wanted)
        chosen = kept or _fresh(name, wanted)
        network.check_controller(chosen.controller, chosen.network)
        lost = _resume(chosen) if kept else ""
        verb = "resumed" if kept and not lost else "started"
        if verb == "started":
            removed = _prepare(chosen)
            _spawn(chosen)
            lost += f"; removed {removed} containers, volumes and networks of it" if lost else ""
    return (
        f"{verb} rehearsal {name!r} at {chosen.url} in {time.monotonic() - begin:.1f} s "
        f"(network {chosen.network}, image {chosen.image}){lost}"
    )


def _fresh(name: str, wanted: dict[str, Any]) -> Settings:
    defaults: dict[str, Any] = {"port": DEFAULT_PORT, "network": DEFAULT_NETWORK}
    image = wanted.get("image") or _default_image()
    return Settings(name, **(defaults | wanted | {"image": image}))


def _resumable(name: str, wanted: dict[str, Any]) -> Settings | None:
    """Find what an API process left that was killed; None when another network is wanted or nothing is there."""
    state = State.of(name)
    kept = state.load()
    if kept is None or not state.memory.exists() or wanted.get("network", kept.network) != kept.network:
        return None
    if docker.attempt("network", "inspect", "--format", "{{.Id}}", kept.docker_network).status:
        return None
    known = not docker.attempt("image", "inspect", "--format", "{{.Id}}", kept.image).status
    image = wanted.get("image") or (kept.image if known else _default_image())
    return replace(kept, **(wanted | {"image": image, "pid": 0}))


def _resume(settings: Settings) -> str:
    """Go on with a killed rehearsal; returns why that is not possible, and an empty string when it is."""
    docker.require_image(settings.image)
    for pid in _processes(settings.name):
        _end(pid)
    _require_free_port(settings.port)
    firewall.filter_bridge(settings)
    State.of(settings.name).save(settings)
    try:
        _spawn(settings)
    except UnreadableStateError as error:
        return f"; the state of the last run cannot be read ({error})"
    return ""


def down(name: str) -> str:
    """Stop a rehearsal and remove all that it made, and say so in one line.

    Raises:
        RehearsalError: Something could not be removed.
    """
    with locked():
        state = State.of(name)
        # `molecule test` begins by removing, also on a machine that does not have an engine yet.
        if not state.path.exists() and not docker.answers():
            return f"rehearsal {name!r} was not running, nothing to remove (no Docker engine answers)"
        was_running = running(name) is not None
        removed = _clean(name)
        existed = state.path.exists()
        shutil.rmtree(state.path, ignore_errors=True)
    if not (was_running or removed or existed):
        return f"rehearsal {name!r} was not running, nothing to remove"
    return f"stopped rehearsal {name!r}, removed {removed} containers, volumes and networks"


def _default_image() -> str:
    image = docker.newest_image(IMAGE_REPOSITORY)
    if image is None:
        docker.run("version", "--format", "{{.Server.Version}}")
        raise RehearsalError(
            f"there is no local image of {IMAGE_REPOSITORY}; `make rehearse` builds it, or use --image"
        )
    return image


def _already(settings: Settings, said: dict[str, Any], wanted: dict[str, Any]) -> str:
    for field in FIXED:
        actual = getattr(settings, field)
        if wanted.get(field, actual) != actual:
            raise RehearsalError(
                f"rehearsal {settings.name!r} runs with {field} {actual or 'as usual'}, not {wanted[field]}; "
                f"stop it first: python -m rehearsal --name {settings.name} down"
            )
    line = f"already running: rehearsal {settings.name!r} at {settings.url}"
    changes = {one: wanted[one] for one in CHANGES if one in wanted and wanted[one] != said[one]}
    if not changes:
        return line
    network.check_controller(changes.get("controller", ""), settings.network)
    if "image" in changes:
        docker.require_image(changes["image"])
    said_now = ask(settings, "PUT", changes) or {"error": "it does not answer"}
    if "error" in said_now:
        raise RehearsalError(f"rehearsal {settings.name!r} could not be changed: {said_now['error']}")
    State.of(settings.name).save(replace(settings, **changes))
    return "; ".join([line, *(CHANGES[one].format(value) for one, value in changes.items())])


def _prepare(settings: Settings) -> int:
    """Refuse what cannot work, clean up after a crash and make the network; returns how many things were removed."""
    whole = network.parse_network(settings.network)
    docker.require_image(settings.image)
    removed = _clean(settings.name)
    _require_free_port(settings.port)
    shutil.rmtree(State.of(settings.name).path, ignore_errors=True)
    docker.create_network(
        settings.docker_network, settings.name, settings.network, str(whole[1]), network.default_mtu()
    )
    firewall.filter_bridge(settings)
    State.of(settings.name).save(settings)
    return removed


def moto_environment() -> dict[str, str]:
    """Return the variables that give moto our account and images, and have it refuse what AWS refuses."""
    return {
        "MOTO_ACCOUNT_ID": ACCOUNT_ID,
        "MOTO_AMIS_PATH": str(Path(__file__).with_name("amis.json")),
        "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
        "MOTO_ENABLE_AMI_VALIDATION": "1",
        "MOTO_ENABLE_KEYPAIR_VALIDATION": "1",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
    }


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RehearsalError(f"--port {port}: {error.strerror}; choose another one") from error


def _spawn(settings: Settings) -> None:
    state = State.of(settings.name)
    root = str(Path(__file__).parent.parent)
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with state.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", API_MODULE, settings.name],
            cwd="/",
            env={**os.environ, **moto_environment(), "PYTHONPATH": search},
            start_new_session=True,
            stderr=log,
            stdin=subprocess.DEVNULL,
            stdout=log,
        )
    state.with_pid(settings, process.pid)
    if not _until(lambda: process.poll() is not None or ask(settings) is not None, START_LIMIT) or process.poll():
        tail = state.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        if process.returncode == UNREADABLE:
            raise UnreadableStateError(tail[-1] if tail else "")
        if not state.memory.exists():
            _clean(settings.name)
        raise RehearsalError(f"the API process did not start, see {state.log}: {' | '.join(tail)}")


def _until(done: Callable[[], bool], limit: float) -> bool:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if done():
            return True
        time.sleep(0.1)
    return done()


def _clean(name: str) -> int:
    """End the API process and remove everything in Docker; returns how many things were removed."""
    for pid in _processes(name):
        _end(pid)
    settings = State.of(name).load()
    firewall.remove(name, settings.image if settings else "")
    return docker.reap(name)


def _processes(name: str) -> list[int]:
    """Find the API process, hung or not, and the docker client that a killed one left behind.

    By their command lines: a pid file proves nothing after a crash, its number may be somebody else's by now.
    """
    wanted = (["-m", API_MODULE, name], docker.events_command(name)[1:])
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _command(pid)[1:] in wanted]


def _command(pid: int) -> list[str]:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [word.decode(errors="replace") for word in words[:-1]]


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if _until(lambda: _gone(pid), END_LIMIT):
            return
    raise RehearsalError(f"the API process {pid} does not end")


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # its parent has not asked for the exit code yet
