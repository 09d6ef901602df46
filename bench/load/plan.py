"""What load is wanted, and whether it is a sensible one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.load.errors import LoadError

METHODS = ("GET", "HEAD", "POST")
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Plan:
    """A load.

    Attributes:
        url: Address of the server, such as ``http://localhost:7151``.
        rate: Requests per second in total.
        clients: Number of clients, each with one connection at a time.
        seconds: How long; until it is stopped when None.
        methods: Share of each method; only their proportion matters.
        body_bytes: Size of the body of a POST.
        timeout: Seconds for one request, from connecting to the last byte of its answer.
        anywhere: Whether the server may have a public address.
        address: Where to connect to, when that is not where the URL's name leads; empty when it is.
        authorities: File with the certificates to trust with https; those of the system when empty.
        reconnecting: How many of the clients open a new connection for each request; the others keep theirs.
    """

    url: str
    rate: float = 100.0
    clients: int = 8
    seconds: float | None = None
    methods: Mapping[str, float] = field(default_factory=lambda: {"GET": 1.0})
    path: str = "/whoami"
    body_bytes: int = 100
    timeout: float = 10.0
    anywhere: bool = False
    address: str = ""
    authorities: str = ""
    reconnecting: int = 0

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            LoadError: A value is wrong; the message names it.
        """
        positive = {"rate": self.rate, "clients": self.clients, "seconds": self.seconds, "timeout": self.timeout}
        for name, value in positive.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise LoadError(f"{name} is {value}, it must be above 0")
        if not 0 <= self.reconnecting <= self.clients:
            raise LoadError(f"reconnecting clients are {self.reconnecting}, they must be 0 to {self.clients}")
        if self.body_bytes < 0:
            raise LoadError(f"body bytes are {self.body_bytes}, they must be 0 or more")
        if not re.fullmatch(r"/[!-~]*", self.path):
            raise LoadError(f"path is {self.path!r}, it must begin with / and have no spaces or special characters")
        _check_methods(self.methods)

    def method(self, number: int) -> str:
        """Choose the method of a request by its number, from 0.

        Multiples of the golden ratio spread every method evenly over any stretch of requests, without a period: with
        GET and POST in turns, a balancer in front of two replicas would give all POSTs to one of them.
        """
        place = (number * GOLDEN) % 1.0 * sum(self.methods.values())
        chosen = ""
        for name, share in self.methods.items():
            if share > 0:
                chosen = name
                place -= share
            if place < 0:
                break
        return chosen

    def request(self, method: str, host: str) -> bytes:
        """Write the bytes of a request; ``host`` is the value of its Host header."""
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {host}", "User-Agent: bench.load", "Accept: */*"]
        body = b"x" * self.body_bytes if method == "POST" else b""
        if method == "POST":
            lines += ["Content-Type: application/octet-stream", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _check_methods(methods: Mapping[str, float]) -> None:
    unknown = methods.keys() - set(METHODS)
    if unknown:
        raise LoadError(f"unknown method {', '.join(sorted(unknown))}; known are {', '.join(METHODS)}")
    shares = methods.values()
    if any(share < 0 or not math.isfinite(share) for share in shares) or not any(shares):
        raise LoadError(f"shares of the methods are {dict(methods)}; none may be negative, and not all 0")
