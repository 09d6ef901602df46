"""A thin typed wrapper around the ``docker`` command line.

The command line and not the API: ``systempaths=unconfined`` and the seccomp file are resolved by the client.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from rehearsal.errors import RehearsalError
from rehearsal.rules import Names

LABEL = "flask-fleet.rehearsal"
"""Label on every container, volume, network and image; its value is the rehearsal's name."""

SHORT = 60.0
"""Seconds that an ordinary Docker command may take."""

REAP_PASSES = 5
REAP_PAUSE = 0.3
"""Seconds between two passes."""

REMOVALS = (
    ("container", ("container", "rm", "--force", "--volumes")),
    ("volume", ("volume", "rm", "--force")),
    ("image", ("image", "rm", "--force")),
    ("network", ("network", "rm")),
)


class DockerError(RehearsalError):
    """A ``docker`` command failed; the message has the command and its stderr."""


ENGINE = {"DOCKER_HOST": "unix:///var/run/docker.sock"}
"""This machine's own, whatever Docker's variables and contexts say: its packet filter is part of the rehearsal."""


@dataclass(frozen=True)
class Outcome:
    """What a ``docker`` command gave back."""

    status: int
    stdout: str
    stderr: str


def attempt(*arguments: str, timeout: float = SHORT) -> Outcome:
    """Run a ``docker`` command that may fail; the timeout is in seconds.

    Raises:
        DockerError: There is no ``docker`` client, or the command did not end in time.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            check=False,
            encoding="utf-8",
            env={**os.environ, **ENGINE},
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=timeout,
        )
    except FileNotFoundError as error:
        raise DockerError("there is no docker client on the PATH; `make rehearse` installs Docker") from error
    except subprocess.TimeoutExpired as error:
        raise DockerError(f"docker {' '.join(arguments[:3])} did not end within {timeout:.0f} s") from error
    return Outcome(done.returncode, done.stdout, done.stderr)


def run(*arguments: str, timeout: float = SHORT) -> str:
    """Run a ``docker`` command that must succeed, and return its stdout, stripped; the timeout is in seconds.

    Raises:
        DockerError: The command failed, was not found or did not end in time.
    """
    outcome = attempt(*arguments, timeout=timeout)
    if outcome.status:
        raise DockerError(f"docker {arguments[0]} failed ({outcome.status}): {outcome.stderr.strip()}")
    return outcome.stdout.strip()


def answers() -> bool:
    """Tell whether Docker's client is installed and an engine answers it.

    Raises:
        DockerError: The engine neither answered nor refused in time.
    """
    return shutil.which("docker") is not None and not attempt("version", "--format", "{{.Server.Version}}").status


def exit_code(container: str) -> int | None:
    """Return the exit code of a container, or None while it runs.

    Raises:
        DockerError: There is no such container.
    """
    state: dict[str, Any] = json.loads(run("container", "inspect", "--format", "{{json .State}}", container))
    return None if state["Running"] else int(state["ExitCode"])


def pinned_cpus() -> list[str]:
    """List the CPU set, such as ``0`` or ``0,1``, of each running instance of every rehearsal on this machine."""
    running = run("container", "ls", "--quiet", "--filter", f"label={LABEL}").split()
    if not running:
        return []
    outcome = attempt("container", "inspect", "--format", "{{.HostConfig.CpusetCpus}}", *running)
    return outcome.stdout.split()


def newest_image(repository: str) -> str | None:
    """Find the newest local image of a repository, as ``repository:tag``; None when there is none."""
    listed = run("image", "ls", "--filter", f"reference={repository}", "--format", "{{.Repository}}:{{.Tag}}")
    return next((line for line in listed.splitlines() if not line.endswith(":<none>")), None)


def require_image(image: str) -> None:
    """Make sure that an image exists on this machine, by its name and tag or its id.

    Raises:
        DockerError: The image does not exist, or the engine does not answer.
    """
    if attempt("image", "inspect", "--format", "{{.Id}}", image).status:
        run("version", "--format", "{{.Server.Version}}")
        raise DockerError(f"there is no local image {image!r}; `make rehearse` builds the instance image")


def create_network(name: str, rehearsal: str, cidr: str, gateway: str, mtu: int) -> None:
    """Make a rehearsal's Docker network.

    Args:
        gateway: Address of this machine in the network.
        mtu: Largest packet in bytes; that of the way out, or large downloads from inside an instance stall.

    Raises:
        DockerError: The subnet is already in use, or the engine does not answer.
    """
    options = (
        f"--subnet={cidr}",
        f"--gateway={gateway}",
        f"--opt=com.docker.network.driver.mtu={mtu}",
        f"--opt=com.docker.network.bridge.name={Names(rehearsal).bridge}",
    )
    try:
        run("network", "create", f"--label={LABEL}={rehearsal}", *options, name)
    except DockerError as error:
        raise DockerError(f"--network {cidr}: {error}") from error


def events_command(rehearsal: str) -> list[str]:
    """Return a command that prints the name of each container of a rehearsal that ends, one per line, for ever."""
    which = ["--filter=type=container", "--filter=event=die", f"--filter=label={LABEL}={rehearsal}"]
    return ["docker", "events", *which, "--format={{.Actor.Attributes.name}}"]


def _listed(kind: str, rehearsal: str) -> list[str]:
    everything = ("--all",) if kind == "container" else ()
    listed = run(kind, "ls", "--quiet", *everything, "--filter", f"label={LABEL}={rehearsal}")
    return list(dict.fromkeys(listed.split()))


def reap(rehearsal: str) -> int:
    """Remove all containers, volumes, images and networks of one rehearsal, whatever state they are in, and count them.

    Raises:
        DockerError: Something could not be removed.
    """
    removed = 0
    complaint = ""
    for _ in range(REAP_PASSES):
        found, complaint = _reap_once(rehearsal)
        if not found:
            return removed
        removed += found
        # Look again: the engine may still carry out what a killed client ordered.
        time.sleep(REAP_PAUSE)
    raise DockerError(f"could not remove everything of rehearsal {rehearsal!r}: {complaint}")


def remove_unknown(rehearsal: str, known: set[str]) -> list[str]:
    """Remove the containers and volumes of one rehearsal that belong to none of its instances, and return their names.

    ``known`` are the names of those that do.
    """
    removed = []
    for kind, command in REMOVALS[:2]:
        field = "{{.Names}}" if kind == "container" else "{{.Name}}"
        everything = ("--all",) if kind == "container" else ()
        which = ("--filter", f"label={LABEL}={rehearsal}")
        names = set(run(kind, "ls", *everything, *which, "--format", field).split()) - known
        if names:
            attempt(*command, *sorted(names), timeout=120)
            removed += sorted(names)
    return removed


def _reap_once(rehearsal: str) -> tuple[int, str]:
    """Remove what is there now; returns how many things were found and what the engine complained about."""
    count, complaint = 0, ""
    for kind, command in REMOVALS:
        found = _listed(kind, rehearsal)
        if found:
            complaint = attempt(*command, *found, timeout=120).stderr.strip() or complaint
            count += len(found)
    return count, complaint
