"""The command line: ``python -m bench.load URL [options]``."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.load.errors import LoadError
from bench.load.generator import Generator
from bench.load.plan import METHODS, Plan
from bench.load.report import Latency, Report

USAGE_ERROR = 2
MAX_SHOWN = 20


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="python -m bench.load",
        description="Send HTTP requests at a constant rate and count what became of each, for --seconds or until "
        "Ctrl-C. Exit code: 0 when all were ok, 1 when one was not, 2 when no load could be made.",
    )
    top.add_argument("url", metavar="URL", help="the server, such as http://localhost:7151")
    top.add_argument("--rate", type=float, default=100.0, help="requests per second in total (default: %(default)g)")
    top.add_argument("--clients", type=int, default=8, help="one connection each at a time (default: %(default)s)")
    top.add_argument(
        "--reconnecting",
        type=int,
        default=0,
        metavar="N",
        help="so many of them open a new connection for each request (default: all keep theirs)",
    )
    top.add_argument("--seconds", type=float, help="how long (default: until Ctrl-C or SIGTERM)")
    top.add_argument(
        "--method", type=_shares, default={"GET": 1.0}, metavar="NAME[:SHARE],…", help="GET:0.5,POST:0.5 (default: GET)"
    )
    top.add_argument("--path", default="/whoami", help="default: %(default)s")
    top.add_argument("--body-bytes", type=int, default=100, help="size of a POST (default: %(default)s)")
    top.add_argument("--timeout", type=float, default=10.0, help="seconds for one request (default: %(default)g)")
    top.add_argument("--json", metavar="FILE", help="write the report as JSON too; - for stdout, without the text")
    top.add_argument("--progress", action="store_true", help="one line per second on stderr")
    top.add_argument("--anywhere", action="store_true", help="allow a public address: only for a server of your own")
    top.add_argument("--address", default="", help="where to connect to, when that is not where the name leads")
    top.add_argument(
        "--authorities", default="", metavar="FILE", help="certificates to trust with https (default: system's)"
    )
    return top


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, colon, share = part.strip().partition(":")
        if name not in METHODS or name in shares:
            raise argparse.ArgumentTypeError(f"{name!r} in {text!r} is not one of {', '.join(METHODS)}, each once")
        try:
            shares[name] = float(share) if colon else 1.0
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{share!r} in {text!r} is not a number") from error
    return shares


def text(report: Report) -> str:
    """Write a report for a person, on several lines."""
    failed, in_flight = _counted(report.failures()), f", in flight {report.in_flight}" if report.in_flight else ""
    lines = [
        f"{report.url}: {report.rate:g} requests/s for {report.elapsed:.1f} s from {report.clients} clients",
        f"planned {report.planned}, sent {report.sent}, ok {report.ok}, failed {failed}{in_flight}",
        *_methods(report),
        *_reconnecting(report),
        f"latency from the due time: {_latency(report.latency)}",
        f"longest time without an ok answer: {report.longest_gap:.3f} s, from second {report.longest_gap_at:.3f}",
        f"late starts {report.late_starts}, generator late by at most {_milliseconds(report.lag)}",
        f"connections {report.connections}, closed by the server while idle {report.idle_closes}",
        f"answers by status: {_counted(report.statuses)}",
    ]
    for title, names in (("container", report.containers), ("release", report.releases)):
        for name, seen in sorted(names.items()):
            lines.append(f"{title} {name}: {seen.count} answers, second {seen.first:.1f} to {seen.last:.1f}")
    return "\n".join(lines + _troubles(report))


def _methods(report: Report) -> list[str]:
    if len(report.methods) == 1:
        return []
    return [
        f"  {name}: sent {one.sent}, ok {one.ok}, failed {_counted(one.failed)}"
        for name, one in sorted(report.methods.items())
    ]


def _reconnecting(report: Report) -> list[str]:
    one = report.new_connections
    line = f"  over a new connection each: sent {one.sent}, ok {one.ok}, failed {_counted(one.failed)}"
    return [line] if one.sent else []


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "none"


def _latency(latency: Latency) -> str:
    values = {"p50": latency.p50, "p90": latency.p90, "p99": latency.p99, "p99.9": latency.p99_9, "max": latency.max}
    return ", ".join(f"{name} {_milliseconds(value)}" for name, value in values.items())


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1000:.1f} ms"


def _troubles(report: Report) -> list[str]:
    troubled = [second for second in report.seconds if second.failed]
    lines = [
        f"due in second {second.second}: ok {second.ok}, failed {_counted(second.failed)}"
        for second in troubled[:MAX_SHOWN]
    ]
    if len(troubled) > MAX_SHOWN:
        lines.append(f"… and {len(troubled) - MAX_SHOWN} more seconds with failures: --json has them all")
    return lines


def _drive(generator: Generator, *, progress: bool) -> None:
    """Run the load to its end; the first signal ends it, the second one does not wait for answers."""
    signals = 0

    def end(_number: int, _frame: object) -> None:
        nonlocal signals
        signals += 1

    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in handled}
    try:
        generator.start()
        shown = 1.0
        # Looks at the signals several times per second: a handler must not take the generator's lock itself.
        while not generator.wait(0.1):
            if signals > 1:
                generator.abort()
            elif signals:
                generator.stop()
            if progress and generator.elapsed() >= shown:
                print(generator.progress(), file=sys.stderr, flush=True)
                shown += 1.0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare(file: str | None) -> None:
    """Find out before a long load, not after it, that its report could not be written."""
    if file and file != "-":
        try:
            Path(file).touch()
        except OSError as error:
            raise LoadError(f"the report cannot be written: {error}") from error


def _deliver(report: Report, file: str | None) -> None:
    if file == "-":
        print(report.to_json())
        return
    if file:
        Path(file).write_text(report.to_json() + "\n", encoding="utf-8")
    print(text(report))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one load; the arguments are those of the process when None.

    Returns:
        Exit code: 0 when every request that was due was sent and ok, 1 when one was not, 2 when no load could be made.
    """
    given = parser().parse_args(arguments)
    plan = Plan(
        url=given.url,
        rate=given.rate,
        clients=given.clients,
        seconds=given.seconds,
        methods=given.method,
        path=given.path,
        body_bytes=given.body_bytes,
        timeout=given.timeout,
        anywhere=given.anywhere,
        address=given.address,
        authorities=given.authorities,
        reconnecting=given.reconnecting,
    )
    try:
        _prepare(given.json)
        generator = Generator(plan)
        _drive(generator, progress=given.progress)
        report = generator.report()
        _deliver(report, given.json)
    except LoadError as error:
        print(f"bench.load: {error}", file=sys.stderr)
        return USAGE_ERROR
    return 0 if report.ok == report.planned else 1
