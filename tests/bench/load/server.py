"""A server that misbehaves as the test decides for each request, and that counts the requests itself."""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

BODY = json.dumps({"container": "c0ffee", "release": "r1"}).encode()


@dataclass(frozen=True)
class Request:
    """A request as it arrived.

    Attributes:
        number: How many requests came before it, over all connections.
        head: First line and headers.
    """

    number: int
    method: str
    head: str
    body: bytes


class Hangup(Exception):  # noqa: N818 (what a behaviour does, not an error)
    """The connection has to be closed."""


Behaviour = Callable[[socket.socket, Request], None]


def send(data: bytes) -> Behaviour:
    """Answer with these bytes and keep the connection open."""
    return lambda connection, _request: connection.sendall(data)


def answer(status: int = 200, body: bytes = BODY, headers: str = "") -> Behaviour:
    """Answer properly, with Content-Length."""
    return send(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


def then_close(behaviour: Behaviour) -> Behaviour:
    """Return a behaviour that closes the connection cleanly after another one."""

    def closing(connection: socket.socket, request: Request) -> None:
        behaviour(connection, request)
        raise Hangup

    return closing


def close(_connection: socket.socket, _request: Request) -> None:
    """Close cleanly without an answer: what a client sees when a close crosses its request."""
    raise Hangup


def reset(connection: socket.socket, _request: Request) -> None:
    """Close with RST without an answer, as a killed process does with unread data."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise Hangup


def never(connection: socket.socket, _request: Request) -> None:
    """Send nothing until the client has gone."""
    connection.recv(1)
    raise Hangup


def slowly(seconds: float, behaviour: Behaviour) -> Behaviour:
    """Return a behaviour that begins some seconds late."""

    def late(connection: socket.socket, request: Request) -> None:
        time.sleep(seconds)
        behaviour(connection, request)

    return late


def drip(connection: socket.socket, _request: Request) -> None:
    """Send the headers byte by byte for ever: a timeout that begins again with each byte never ends."""
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)
    raise Hangup


class Server:
    """An HTTP server that serves each connection in a thread.

    Attributes:
        done: How many requests met which behaviour, by the name the test gave it.
        requests: All requests, in the order of their arrival.
        connections: How many connections were accepted.
    """

    def __init__(self, behaviours: dict[str, Behaviour], idle: float | None) -> None:
        """Listen and accept connections until ``stop``.

        The behaviours are used in turns, one per request. A connection without a request is closed after ``idle``
        seconds, or never if that is None.
        """
        self.done: Counter[str] = Counter()
        self.requests: list[Request] = []
        self.connections = 0
        self._idle = idle
        self._turns = itertools.cycle(behaviours.items())
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        # Only shutdown wakes a thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            thread = threading.Thread(target=self._talk, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(Hangup, OSError):
            while True:
                # The time for a request to begin, and for nothing else.
                connection.settimeout(self._idle)
                head = stream.readline()
                connection.settimeout(None)
                if not head:
                    break
                while (line := stream.readline()) not in (b"\r\n", b""):
                    head += line
                self._handle(connection, head.decode(), stream.read(_length(head)))
        with self._lock:
            self._open.discard(connection)

    def _handle(self, connection: socket.socket, head: str, body: bytes) -> None:
        with self._lock:
            request = Request(len(self.requests), head.partition(" ")[0], head, body)
            self.requests.append(request)
            name, behaviour = next(self._turns)
            self.done[name] += 1
        behaviour(connection, request)


def _length(head: bytes) -> int:
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    return sum(int(value) for name, _, value in lines if name.lower() == b"content-length")


@contextmanager
def serving(*, idle: float | None = None, **behaviours: Behaviour) -> Iterator[Server]:
    """Run a server during a block.

    Args:
        idle: Seconds after which a connection without a request is closed; None for never.
        **behaviours: Used in turns, one per request, under the names that ``done`` counts; without any all is well.
    """
    server = Server(behaviours or {"ok": answer()}, idle)
    try:
        yield server
    finally:
        server.stop()
