"""The command line: ``python -m rehearsal [--name NAME] up|down|status|reset|env|fault``."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rehearsal import daemon
from rehearsal.account import ACCOUNTS, PAID, QUOTAS
from rehearsal.errors import RehearsalError
from rehearsal.faults import KINDS, NOTICE, SLOW, STATES
from rehearsal.policy import Policy
from rehearsal.state import DEFAULT_NAME, DEFAULT_NETWORK, DEFAULT_PORT, exports

COLUMNS = ("id", "type", "state", "address", "vCPU", "memory", "since")


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="python -m rehearsal", description="A local EC2 of systemd containers.")
    top.add_argument("--name", default=DEFAULT_NAME, help="several can run side by side (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="up|down|status|reset|env|fault")
    _add_up_options(commands.add_parser("up", help="start it, or do nothing when it runs"))
    commands.add_parser("down", help="stop it and remove its containers, volumes, network and files")
    commands.add_parser("status", help="list its instances; fails when it does not run")
    commands.add_parser("reset", help="like down, also after a crash")
    commands.add_parser("env", help='print the environment for eval "$(...)"; fails when it does not run')
    _add_fault_parser(commands.add_parser("fault", help="let something go wrong"))
    return top


def _add_up_options(start: argparse.ArgumentParser) -> None:
    start.add_argument("--image", help="Docker image of new instances (default: newest of flask-fleet/instance)")
    start.add_argument("--port", type=int, help=f"port of the API on 127.0.0.1 (default: {DEFAULT_PORT})")
    start.add_argument("--network", metavar="CIDR", help=f"private /16 of the instances (default: {DEFAULT_NETWORK})")
    start.add_argument(
        "--controller-address",
        dest="controller",
        metavar="ADDRESS",
        help="what instances see of this machine, as behind a NAT (default: the network's first address)",
    )
    start.add_argument("--account", choices=ACCOUNTS, help=f"new: on the free plan, with few quotas (default: {PAID})")
    start.add_argument(
        "--quota", action="append", type=_quota, metavar="CODE=VALUE", help="another value of a quota; may be repeated"
    )
    start.add_argument(
        "--policy",
        type=_policy,
        metavar="FILE",
        help="IAM policy that is enforced: JSON, or a page with one such block (default: everything is allowed)",
    )


def _policy(name: str) -> dict[str, Any]:
    """Read a policy; an empty name stands for none."""
    try:
        text = Path(name).read_text(encoding="utf-8") if name else "{}"
        blocks = re.findall(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        document: dict[str, Any] = json.loads(blocks[0] if len(blocks) == 1 else text)
        Policy(document)
    except (OSError, ValueError, AttributeError, RehearsalError) as error:
        raise argparse.ArgumentTypeError(f"{name!r}: not a policy that can be enforced: {error}") from error
    return document


def _quota(text: str) -> tuple[str, int]:
    code, _, value = text.partition("=")
    if code not in QUOTAS or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are {', '.join(QUOTAS)} with a number, as in L-1216C47A=1")
    return code, int(value)


def _add_fault_parser(fault: argparse.ArgumentParser) -> None:
    orders = fault.add_subparsers(dest="order", required=True, metavar="add|list|clear")
    kinds = "\n".join(f"  {kind:<10} {text}" for kind, text in KINDS.items())
    add = orders.add_parser(
        "add",
        help="let something go wrong",
        description=f"kinds:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add.add_argument("kind", choices=KINDS)
    add.add_argument("--count", type=int, help="how many times (default: 1)")
    add.add_argument("--action", help="throttle, error, stale: such as RunInstances or iam:* (default: ec2:*)")
    add.add_argument("--code", help="error: AWS's code, such as VcpuLimitExceeded (default: InternalError)")
    add.add_argument("--words", help="error: AWS's message")
    add.add_argument("--nth", type=int, help="error: which call (default: the next one)")
    add.add_argument("--type", help="capacity: only of this instance type")
    add.add_argument("--zone", help="capacity: only in this zone, when the call names it")
    add.add_argument("--instance", help="terminate: its id (default: the next one launched)")
    add.add_argument("--after", type=float, help=f"terminate: seconds of notice (default: {NOTICE:g})")
    add.add_argument("--state", choices=STATES, help="slow: which state (default: pending)")
    add.add_argument("--seconds", type=float, help=f"slow, stale: how long (default: {SLOW:g})")
    orders.add_parser("list", help="what is still to happen")
    orders.add_parser("clear", help="take faults back").add_argument("number", type=int, nargs="*", help="default: all")


def table(instances: Sequence[dict[str, Any]]) -> str:
    """Lay out the instances, as the API process describes them, in lines with aligned columns."""
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
    given = {name: value for name, value in vars(arguments).items() if name != "command" and value is not None}
    if "quota" in given:
        given["quotas"] = dict(given.pop("quota"))
    return daemon.up(**given)


def _down(arguments: argparse.Namespace) -> str:
    return daemon.down(arguments.name)


def _fault(arguments: argparse.Namespace) -> str:
    match arguments.order:
        case "add":
            values = {
                name: value for name, value in vars(arguments).items() if name not in {"name", "command", "order"}
            }
            return f"added fault {daemon.faults(arguments.name, 'POST', values)['added']}"
        case "clear":
            return f"cleared {daemon.faults(arguments.name, 'DELETE', arguments.number)['cleared']} faults"
        case _:
            return "\n".join(daemon.faults(arguments.name, "GET")["faults"]) or "no faults"


COMMANDS: dict[str, Callable[[argparse.Namespace], str]] = {
    "up": _up,
    "down": _down,
    "reset": _down,
    "status": _status,
    "env": _env,
    "fault": _fault,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the arguments are those of the process when None.

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
