"""The generator: every client is a thread with a connection of its own.

Threads and not asyncio, because a blocking wait is exact to 0.1 ms where asyncio's is rounded up to whole milliseconds,
at half the CPU per request.
"""

from __future__ import annotations

import copy
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

from bench.load.connection import Connection, Failure, Reset
from bench.load.errors import LoadError
from bench.load.plan import Plan
from bench.load.report import Counts, Example, Method, Report, status_failure
from bench.load.target import find_target

HEAD_START = 0.02
"""Seconds from the start of the clients until the first request is due, for them to claim theirs."""


class Generator:
    """A load that is running or has ended.

    Request number n is due n/rate seconds after the start. Clients claim the numbers in order and wait until theirs is
    due; so a number is claimed too late only when all clients were busy, and no request is left out because of that.
    """

    def __init__(self, plan: Plan) -> None:
        """Check the plan and find the server; nothing is sent yet.

        Raises:
            LoadError: The plan makes no sense, or its server must not be loaded.
        """
        plan.check()
        target = find_target(plan.url, anywhere=plan.anywhere, address=plan.address, authorities=plan.authorities)
        self.plan = plan
        self.started = 0.0
        report = Report(plan.url.rstrip("/") + plan.path, plan.rate, plan.clients, plan.timeout)
        report.methods = {method: Method() for method, share in plan.methods.items() if share > 0}
        self._counts = Counts(report)
        self._requests = {method: plan.request(method, target.host) for method in report.methods}
        self._connections = [Connection(target, keeps=n >= plan.reconnecting) for n in range(plan.clients)]
        self._lock = threading.Lock()
        self._claimed = 0
        self._highest = -1
        # Whole numbers decide what belongs to the load: comparing times would miscount by one now and then.
        self._total = None if plan.seconds is None else max(round(plan.rate * plan.seconds), 1)
        self._end = None if plan.seconds is None else plan.seconds
        self._beginning = threading.Event()
        self._ending = threading.Event()
        self._aborted = False
        self._clients: list[Future[None]] = []

    def start(self) -> None:
        """Begin to send requests."""
        pool = ThreadPoolExecutor(self.plan.clients, "client")
        self._clients = [pool.submit(self._run, connection) for connection in self._connections]
        for client in self._clients:
            client.add_done_callback(self._stop_after_error)
        pool.shutdown(wait=False)
        self.started = time.monotonic() + HEAD_START
        self._counts.report.started = time.time() + HEAD_START
        self._beginning.set()

    def elapsed(self) -> float:
        """Return the seconds since the first request was due; they are negative before."""
        return time.monotonic() - self.started

    def stop(self) -> None:
        """End the load now: what is due already is still sent, and waited for."""
        with self._lock:
            if self._ending.is_set():
                return
            now = self.elapsed()
            if self._end is None or now < self._end:
                self._total = self._planned(now)
                self._end = now
            self._ending.set()

    def abort(self) -> None:
        """End the load without waiting for anything; requests in flight stay without an outcome."""
        self._aborted = True
        self.stop()
        for connection in self._connections:
            connection.interrupt()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the load and return whether it has ended.

        The timeout is in seconds; there is no limit when it is None.

        Raises:
            LoadError: The load ended because this machine ran out of something.
        """
        done, running = wait(self._clients, timeout)
        for client in done:
            client.result()
        return not running

    def report(self) -> Report:
        """Return a report that does not change any more; it may be asked for at any time."""
        with self._lock:
            now = self.elapsed()
            report = self._counts.report
            report.planned = self._planned(now)
            report.connections = sum(connection.opened for connection in self._connections)
            report.idle_closes = sum(connection.idle_closes for connection in self._connections)
            return copy.deepcopy(self._counts.finish(now if self._end is None else min(now, self._end)))

    def progress(self) -> str:
        """Describe the last whole second in one line."""
        with self._lock:
            second = max(int(self.elapsed()) - 1, 0)
            ok, report = self._counts.second(second).ok, self._counts.report
            failed = "".join(f", {kind} {count}" for kind, count in sorted(report.failures().items()))
            return (
                f"{second + 1:4} s: ok {ok} of this second; in all sent {report.sent}, ok {report.ok}{failed}, "
                f"in flight {report.in_flight}, late starts {report.late_starts}"
            )

    def _planned(self, now: float) -> int:
        due = int(now * self.plan.rate) + 1 if now >= 0 else 0
        known = max(due, self._highest + 1)
        return known if self._total is None else min(known, self._total)

    def _stop_after_error(self, client: Future[None]) -> None:
        if client.exception() is not None:
            self.abort()

    def _run(self, connection: Connection) -> None:
        self._beginning.wait()
        try:
            while (number := self._next(connection)) is not None:
                self._send(connection, number)
        finally:
            connection.close()

    def _next(self, connection: Connection) -> int | None:
        """Claim the next request, wait until it is due and count it as sent; None at the end of the load."""
        with self._lock:
            number = self._claimed
            self._claimed += 1
        due = number / self.plan.rate
        early = due - self.elapsed()
        if early > 0 and (self._total is None or number < self._total):
            self._ending.wait(early)
        with self._lock:
            now = self.elapsed()
            if self._is_over(number, now):
                return None
            self._highest = max(self._highest, number)
            report = self._counts.report
            if early > 0:
                report.lag = max(report.lag, now - due)
            else:
                report.late_starts += 1
            self._counts.start(self.plan.method(number), new=not connection.keeps)
            return number

    def _is_over(self, number: int, now: float) -> bool:
        if self._aborted or (self._total is not None and number >= self._total):
            return True
        # A backlog that a slow server left is sent after the end, but not for ever.
        return self._end is not None and now > self._end + self.plan.timeout

    def _send(self, connection: Connection, number: int) -> None:
        method, due, sent = self.plan.method(number), number / self.plan.rate, self.elapsed()
        kind, detail, status, body = None, "", 0, b""
        try:
            answer = connection.exchange(self._requests[method], self.plan.timeout, head_only=method == "HEAD")
            status, body = answer.status, answer.body
            kind = status_failure(status)
        except Failure as failure:
            kind, detail = failure.kind, str(failure)
        now = self.elapsed()
        with self._lock:
            if self._aborted:
                return
            if status:
                self._counts.answer(status, body, now)
            if kind is None:
                self._counts.ok(method, due, now, new=not connection.keeps)
                return
            self._counts.failure(method, due, Example(round(now, 3), method, kind, detail), new=not connection.keeps)
            if status:
                self._counts.rejection(now - sent)
            if kind == Reset.kind and connection.reused:
                self._counts.report.resets_reused += 1


def run(plan: Plan) -> Report:
    """Run a load that has a length, to its end.

    Raises:
        LoadError: The plan has no length or makes no sense, or this machine ran out of something.
    """
    if plan.seconds is None:
        raise LoadError("seconds are missing: this load would never end")
    generator = Generator(plan)
    generator.start()
    generator.wait()
    return generator.report()
