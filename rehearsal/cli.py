"""The command line: ``python -m rehearsal [--name NAME] up|down|status|reset|env``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rehearsal import daemon
from rehearsal.errors import RehearsalError
from rehearsal.state import DEFAULT_NAME, DEFAULT_NETWORK, DEFAULT_PORT, exports

COLUMNS = ("id", "type", "state", "address", "vCPU", "memory", "since")


def parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Returns:
        Its parser.
    """
    top = argparse.ArgumentParser(prog="python -m rehearsal", description="A local EC2 of systemd containers.")
    top.add_argument("--name", default=DEFAULT_NAME, help="several can run side by side (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="up|down|status|reset|env")
    start = commands.add_parser("up", help="start it, or do nothing when it runs")
    start.add_argument("--image", help="Docker image of new instances (default: newest of flask-fleet/instance)")
    start.add_argument("--port", type=int, help=f"port of the API on 127.0.0.1 (default: {DEFAULT_PORT})")
    start.add_argument("--network", metavar="CIDR", help=f"private /16 of the instances (default: {DEFAULT_NETWORK})")
    commands.add_parser("down", help="stop it and remove its containers, volumes, network and files")
    commands.add_parser("status", help="list its instances; fails when it does not run")
    commands.add_parser("reset", help="like down, also after a crash")
    commands.add_parser("env", help='print the environment for eval "$(...)"; fails when it does not run')
    return top


def table(instances: Sequence[dict[str, Any]]) -> str:
    """Lay out the instances.

    Args:
        instances: What the API process says.

    Returns:
        Lines with aligned columns.
    """
    rows = [COLUMNS]
    for one in instances:
        memory = f"{one['memory']} MiB"
        rows.append(
            (one["id"], one["type"], one["state"], one["address"] or "-", str(one["vcpus"]), memory, one["since"])
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _require(name: str) -> tuple[Any, dict[str, Any]]:
    found = daemon.running(name)
    if found is None:
        raise RehearsalError(f"rehearsal {name!r} is not running; start it: python -m rehearsal --name {name} up")
    return found


def _status(arguments: argparse.Namespace) -> str:
    settings, said = _require(arguments.name)
    head = f"rehearsal {settings.name!r} at {settings.url} (network {settings.network}, image {said['image']})"
    reasons = [f"{one['id']}: {one['reason']}" for one in said["instances"] if str(one["reason"]).startswith("Server.")]
    return "\n".join([head, table(said["instances"]), *reasons])


def _env(arguments: argparse.Namespace) -> str:
    return exports(_require(arguments.name)[0]).rstrip()


def _up(arguments: argparse.Namespace) -> str:
    return daemon.up(arguments.name, arguments.image, arguments.port, arguments.network)


def _down(arguments: argparse.Namespace) -> str:
    return daemon.down(arguments.name)


COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "up": _up,
    "down": _down,
    "reset": _down,
    "status": _status,
    "env": _env,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line; that of the process when None.

    Returns:
        Exit code: 0, or 1 with one message on stderr.
    """
    parsed = parser().parse_args(arguments)
    try:
        print(COMMANDS[parsed.command](parsed))
    except RehearsalError as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 1
    return 0
