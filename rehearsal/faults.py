"""Faults on request, so that error handling can be tried before AWS tries it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from rehearsal.errors import RehearsalError

KINDS = {
    "boot": "the next instance fails to boot and terminates",
    "capacity": "RunInstances or StartInstances: InsufficientInstanceCapacity",
    "throttle": "any call, or that of --action: RequestLimitExceeded",
    "error": "the --nth call from now of --action is refused with --code, and --words for a person",
    "terminate": "--instance, or the next one launched, is taken away after --after seconds, as a spot instance is",
    "stale": "what the next RunInstances, AssociateAddress or iam:AddRoleToInstanceProfile (--action) did is not seen "
    "for --seconds",
    "slow": "the next instance stays --seconds in --state: pending, stopping or shutting-down",
}

STATES = ("pending", "stopping", "shutting-down")

SLOW, NOTICE = 10.0, 120.0
"""Seconds that a slow state lasts and a spot instance still has, when nothing else is said."""


@dataclass
class Fault:
    """Something that is to go wrong.

    Attributes:
        kind: One of ``KINDS``.
        count: How many times still.
        action: Pattern of ``service:Action``, for ``throttle``, ``error`` and ``stale``.
        code: Error code of AWS, for ``error``.
        words: Its message, for ``error``.
        nth: Which of the matching calls, for ``error``; from then on ``count`` calls fail.
        type: Instance type, for ``capacity``; every one when empty.
        zone: Availability zone, for ``capacity``; every one when empty.
        instance: Instance id, for ``terminate``; the next one launched when empty.
        after: Seconds of notice, for ``terminate``.
        state: For ``slow``.
        seconds: For ``slow`` and ``stale``.
        id: Number by which it can be cleared.
    """

    kind: str
    count: int = 1
    action: str = "ec2:*"
    code: str = "InternalError"
    words: str = "An error that was asked for."
    nth: int = 1
    type: str = ""
    zone: str = ""
    instance: str = ""
    after: float = NOTICE
    state: str = "pending"
    seconds: float = SLOW
    id: int = 0

    def __post_init__(self) -> None:
        """Refuse a fault that could never happen.

        Raises:
            RehearsalError: A value is wrong; the message says which.
        """
        if self.kind not in KINDS:
            raise RehearsalError(f"unknown fault {self.kind!r}; there are {', '.join(KINDS)}")
        if self.state not in STATES:
            raise RehearsalError(f"--state {self.state!r}: choose one of {', '.join(STATES)}")
        if min(self.count, self.nth) < 1 or min(self.after, self.seconds) < 0:
            raise RehearsalError("--count and --nth must be at least 1, and --after and --seconds not negative")
        if ":" not in self.action:
            self.action = f"ec2:{self.action}"

    def line(self) -> str:
        """Describe it for a person: its kind, how often, and what it is limited to."""
        shown = {
            "throttle": f"action={self.action}",
            "error": f"action={self.action} code={self.code} nth={self.nth}",
            "capacity": f"type={self.type or 'any'} zone={self.zone or 'any'}",
            "terminate": f"instance={self.instance or 'next'} after={self.after:g}s",
            "stale": f"action={self.action} seconds={self.seconds:g}",
            "slow": f"state={self.state} seconds={self.seconds:g}",
        }
        return f"{self.id}  {self.kind} x{self.count}  {shown.get(self.kind, '')}".rstrip()


def fault_from(values: dict[str, Any]) -> Fault:
    """Make a fault from the attributes that the command line sent.

    Raises:
        RehearsalError: An attribute is unknown, or a value makes no sense.
    """
    unknown = set(values) - {one.name for one in fields(Fault)}
    if unknown:
        raise RehearsalError(f"a fault has no {', '.join(sorted(unknown))}")
    return Fault(**values)


class Faults:
    """The faults that are still to happen, in the order in which they were asked for."""

    def __init__(self) -> None:
        """Start with no faults."""
        self._faults: list[Fault] = []
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Add a fault and give it its number."""
        with self._lock:
            fault.id = next(self._numbers)
            self._faults.append(fault)
        return fault

    def clear(self, numbers: Iterable[int] = ()) -> int:
        """Take back the faults with these numbers, or all when there are none, and count them."""
        wanted = set(numbers)
        with self._lock:
            before = len(self._faults)
            self._faults = [one for one in self._faults if wanted and one.id not in wanted]
            return before - len(self._faults)

    def lines(self) -> list[str]:
        """Describe what is still to happen, with one line per fault."""
        with self._lock:
            return [one.line() for one in self._faults]

    def kept(self) -> list[dict[str, Any]]:
        """Return the attributes of each fault, from which ``restore`` makes them again."""
        with self._lock:
            return [asdict(one) for one in self._faults]

    def restore(self, kept: Iterable[dict[str, Any]]) -> None:
        """Add the faults again that ``kept`` returned; each gets a new number."""
        for values in kept:
            self.add(Fault(**values))

    def take(self, kind: str, matches: Callable[[Fault], bool] = lambda _: True) -> Fault | None:
        """Take the first fault of a kind that matches, which then has happened once; None when nothing goes wrong."""
        with self._lock:
            found = next((one for one in self._faults if one.kind == kind and matches(one)), None)
            if found is not None:
                found.count -= 1
                self._faults = [one for one in self._faults if one.count > 0]
            return found

    def throttles(self, name: str) -> bool:
        """Tell whether this call, such as ``ec2:RunInstances``, is throttled; that uses up the fault once."""
        return self.take("throttle", lambda one: fnmatchcase(name, one.action)) is not None

    def refusal(self, name: str) -> Fault | None:
        """Count a call, such as ``ec2:RunInstances``, and take the fault that refuses it; None when it may pass."""

        def due(one: Fault) -> bool:
            if not fnmatchcase(name, one.action):
                return False
            one.nth -= 1
            return one.nth < 1

        return self.take("error", due)

    def lacks_capacity(self, instance_type: str, zone: str) -> bool:
        """Tell whether capacity is missing this time; type or zone are empty when the call does not say."""

        def meant(one: Fault) -> bool:
            return one.type in {"", instance_type} and one.zone in {"", zone}

        return self.take("capacity", meant) is not None
