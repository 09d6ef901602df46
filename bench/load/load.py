"""Load for tests: runs beside the test while a ``with`` block does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

from bench.load.errors import LoadError
from bench.load.plan import Plan
from bench.load.report import Report
from bench.load.target import find_target


class Options(TypedDict, total=False):
    """Fields of a ``Plan`` that may be given; the end of the block decides how long the load is."""

    rate: float
    clients: int
    methods: Mapping[str, float]
    path: str
    body_bytes: int
    timeout: float
    anywhere: bool
    address: str
    authorities: str
    reconnecting: int


class Load:
    """A load that begins and ends with a ``with`` block.

    ::

        with Load("http://127.0.0.1:7151", rate=100, methods={"GET": 0.5, "POST": 0.5}) as load:
            deploy()
        assert load.report().failures() == {}

    It runs in a process of its own: a thread would share Python's lock with the test, and measure that.
    """

    def __init__(self, url: str, **options: Unpack[Options]) -> None:
        """Check what is wanted; nothing is sent yet.

        Raises:
            LoadError: The plan makes no sense, or its server must not be loaded.
        """
        self.plan = Plan(url, **options)
        self.plan.check()
        plan = self.plan
        find_target(url, anywhere=plan.anywhere, address=plan.address, authorities=plan.authorities)
        self._process: subprocess.Popen[str] | None = None
        self._started = 0.0
        self._final: Report | None = None

    def __enter__(self) -> Self:
        """Start the load, and return when the first request is about to be due.

        Raises:
            LoadError: The load could not be started.
        """
        root = str(Path(__file__).parents[2])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
        )
        self._started = float(self._ask(json.dumps(asdict(self.plan) | {"methods": dict(self.plan.methods)})))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the load and wait for the requests that are due.

        Raises:
            LoadError: The load could not be measured, and the block itself raised nothing.
        """
        process = self._process
        if process is None:
            return
        self._process = None
        # An interrupted test ends at once; one that failed still has its report.
        if kind is not None and not issubclass(kind, Exception):
            process.kill()
        output, complaint = process.communicate()
        if process.returncode == 0:
            self._final = Report.from_json(output)
        elif kind is None:
            raise LoadError(complaint.strip() or f"the generator ended with {process.returncode}")

    def report(self) -> Report:
        """Report what is known so far inside the block, or the whole load after it.

        Raises:
            LoadError: There was no load, or it could not be measured.
        """
        if self._process is not None:
            return Report.from_json(self._ask("report"))
        if self._final is None:
            raise LoadError("there is no report: the load has not run to its end")
        return self._final

    def elapsed(self) -> float:
        """Return the seconds since the first request was due, to find in the report what happened when.

        They are slightly negative at first.
        """
        return time.monotonic() - self._started

    def _ask(self, line: str) -> str:
        """Send a line to the generator and return its answer."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise LoadError("the load does not run")
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process = None
            _, complaint = process.communicate()
            raise LoadError(complaint.strip() or f"the generator ended with {process.returncode}")
        return answer
