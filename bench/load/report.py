"""What became of the requests: counted while the load runs, told as a report."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_EXAMPLES = 20

# Per mille, because 99.9 % of 1000 is a little more than 999 in floating point.
PERCENTILES = {"p50": 500, "p90": 900, "p99": 990, "p99_9": 999, "max": 1000}


@dataclass
class Latency:
    """Percentiles in seconds; NaN, which is neither below nor above any limit, where nothing was measured."""

    p50: float = math.nan
    p90: float = math.nan
    p99: float = math.nan
    p99_9: float = math.nan
    max: float = math.nan


@dataclass
class Method:
    """Outcomes of the requests with one method, or of another part of them.

    Attributes:
        sent: Requests that were started.
        ok: Answers below 500, except 429.
        failed: All others, by kind.
    """

    sent: int = 0
    ok: int = 0
    failed: dict[str, int] = field(default_factory=dict)


@dataclass
class Second:
    """Outcomes of the requests that were due in one second of the load, whenever they ended.

    Attributes:
        second: Number of the second, from 0.
        ok: Answers below 500, except 429.
        failed: All others, by kind.
    """

    second: int
    ok: int = 0
    failed: dict[str, int] = field(default_factory=dict)


@dataclass
class Seen:
    """Answers in which a container or a release named itself, also those with a failure status.

    The first and the last one are told in seconds from the start.
    """

    count: int
    first: float
    last: float


@dataclass
class Example:
    """One of the first failures, in detail; it had failed at ``second``, in seconds from the start."""

    second: float
    method: str
    kind: str
    detail: str


@dataclass
class Report:
    """The whole load, or what is known of it so far.

    Attributes:
        url: Server and path.
        rate: Requests per second that were due.
        clients: Number of clients, each with one connection at a time.
        timeout: Seconds that each request had.
        started: Unix time of the first due time.
        elapsed: Seconds from then to the end of the load, or to this report.
        planned: Requests that were due.
        sent: Requests that were started; less than planned only if the backlog did not fit in the time after the end.
        in_flight: Requests that were started and have no outcome yet; 0 at the end.
        ok: Answers below 500, except 429.
        late_starts: Requests that could not be started when they were due, because all clients were busy.
        lag: Seconds by which the generator itself was late at worst; it is part of the latencies.
        connections: Connections that were opened.
        idle_closes: Connections that the server closed while no request was on them; no failure.
        resets_reused: Resets on connections that had served a request before, as when a close crosses a request.
        longest_gap: Longest time in seconds without an ok answer.
        longest_gap_at: Seconds from the start to the beginning of that time.
        latency: Of ok answers, from the time the request was due.
        rejection_latency: Of answers with a failure status, from the time the request was sent.
        statuses: Number of complete answers by status.
        new_connections: Outcomes of the requests for which a connection was opened; they are in ``methods`` too.
        seconds: Outcomes by the second in which the request was due.
    """

    url: str
    rate: float
    clients: int
    timeout: float
    started: float = 0.0
    elapsed: float = 0.0
    planned: int = 0
    sent: int = 0
    in_flight: int = 0
    ok: int = 0
    late_starts: int = 0
    lag: float = 0.0
    connections: int = 0
    idle_closes: int = 0
    resets_reused: int = 0
    longest_gap: float = 0.0
    longest_gap_at: float = 0.0
    latency: Latency = field(default_factory=Latency)
    rejection_latency: Latency = field(default_factory=Latency)
    statuses: dict[str, int] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)
    new_connections: Method = field(default_factory=Method)
    seconds: list[Second] = field(default_factory=list)
    containers: dict[str, Seen] = field(default_factory=dict)
    releases: dict[str, Seen] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    def failures(self, method: str | None = None) -> dict[str, int]:
        """Count the failures by kind, of all requests or only of those with one method.

        Raises:
            KeyError: The load has no such method.
        """
        chosen = self.methods.values() if method is None else [self.methods[method]]
        total: Counter[str] = Counter()
        for one in chosen:
            total.update(one.failed)
        return dict(total)

    def to_json(self) -> str:
        """Write the report as one line of JSON, in which a latency that was not measured is null."""
        content = asdict(self)
        for name in ("latency", "rejection_latency"):
            content[name] = {key: None if math.isnan(value) else value for key, value in content[name].items()}
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a report that was written with ``to_json``."""
        content: dict[str, Any] = json.loads(text)
        for name in ("latency", "rejection_latency"):
            content[name] = Latency(**{key: value for key, value in content[name].items() if value is not None})
        content["methods"] = {name: Method(**one) for name, one in content["methods"].items()}
        content["new_connections"] = Method(**content["new_connections"])
        content["seconds"] = [Second(**one) for one in content["seconds"]]
        content["containers"] = {name: Seen(**one) for name, one in content["containers"].items()}
        content["releases"] = {name: Seen(**one) for name, one in content["releases"].items()}
        content["examples"] = [Example(**one) for one in content["examples"]]
        return cls(**content)


def percentiles(values: Sequence[float]) -> Latency:
    """Find the percentiles by nearest rank, so that each is a latency that occurred.

    The values are in seconds, in any order.
    """
    if not values:
        return Latency()
    ranked = sorted(values)
    # Rounded up in whole numbers.
    return Latency(**{name: ranked[(share * len(ranked) + 999) // 1000 - 1] for name, share in PERCENTILES.items()})


def status_failure(status: int) -> str | None:
    """Name the kind of failure that an HTTP status means; None when the answer is ok."""
    return f"status_{status}" if status >= 500 or status == 429 else None  # noqa: PLR2004 (the rule itself)


class Counts:
    """Counters behind a report, with times in seconds from the start; whoever uses them has to lock them."""

    def __init__(self, report: Report) -> None:
        """Keep a report up to date, whose latencies, seconds and gap are completed by ``finish``."""
        self.report = report
        self._latencies = array("d")
        self._rejections = array("d")
        self._seconds: dict[int, Second] = {}
        self._last_ok = 0.0

    def _parts(self, method: str, *, new: bool) -> list[Method]:
        """List where a request counts; ``new`` tells that a connection is opened for it."""
        return [self.report.methods[method], *([self.report.new_connections] if new else [])]

    def start(self, method: str, *, new: bool) -> None:
        """Count a request that is being sent; ``new`` tells that a connection is opened for it."""
        self.report.sent += 1
        self.report.in_flight += 1
        for part in self._parts(method, new=new):
            part.sent += 1

    def ok(self, method: str, due: float, now: float, *, new: bool) -> None:
        """Count an ok answer, which was due at ``due`` and complete at ``now``."""
        self.report.in_flight -= 1
        self.report.ok += 1
        for part in self._parts(method, new=new):
            part.ok += 1
        self._row(due).ok += 1
        self._latencies.append(now - due)
        self._widen_gap(now)
        self._last_ok = max(self._last_ok, now)

    def failure(self, method: str, due: float, example: Example, *, new: bool) -> None:
        """Count a request without an ok answer; ``due`` is when it should have been sent."""
        self.report.in_flight -= 1
        parts = self._parts(method, new=new)
        for failed in (*(part.failed for part in parts), self._row(due).failed):
            failed[example.kind] = failed.get(example.kind, 0) + 1
        if len(self.report.examples) < MAX_EXAMPLES:
            self.report.examples.append(example)

    def answer(self, status: int, body: bytes, now: float) -> None:
        """Count a complete answer, and who gave it if the body is JSON that says so."""
        self.report.statuses[str(status)] = self.report.statuses.get(str(status), 0) + 1
        try:
            content = json.loads(body)
        except ValueError:
            return
        if isinstance(content, dict):
            _see(self.report.containers, content.get("container"), now)
            _see(self.report.releases, content.get("release"), now)

    def rejection(self, latency: float) -> None:
        """Note how many seconds after its request a failure status came."""
        self._rejections.append(latency)

    def second(self, number: int) -> Second:
        """Return what is known by now about one second."""
        return self._seconds.get(number, Second(number))

    def finish(self, now: float) -> Report:
        """Complete the report at the end of the load or now; counting goes on in the same report afterwards."""
        self._widen_gap(now)
        self.report.elapsed = max(now, 0.0)
        self.report.latency = percentiles(self._latencies)
        self.report.rejection_latency = percentiles(self._rejections)
        self.report.seconds = [self.second(number) for number in range(max(self._seconds, default=-1) + 1)]
        return self.report

    def _row(self, due: float) -> Second:
        number = int(due)
        return self._seconds.setdefault(number, Second(number))

    def _widen_gap(self, now: float) -> None:
        if now - self._last_ok > self.report.longest_gap:
            self.report.longest_gap = now - self._last_ok
            self.report.longest_gap_at = self._last_ok


def _see(seen: dict[str, Seen], name: object, now: float) -> None:
    if not isinstance(name, str):
        return
    one = seen.setdefault(name, Seen(0, now, now))
    one.count += 1
    one.first, one.last = min(one.first, now), max(one.last, now)
