"""One client's connection: HTTP/1.1 on a plain socket.

``http.client`` would take twice the CPU per request, starts its timeout again with every byte, and does not tell how
much of an answer had arrived when the connection broke.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass

from bench.load.errors import LoadError
from bench.load.target import Target

MAX_HEAD = 64 * 1024
RECEIVE = 64 * 1024
NO_CONTENT = (204, 304)

# With these the fault is this machine's; to count them against the server would be wrong.
OWN_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


class Failure(Exception):  # noqa: N818 (an outcome that is counted, not an error of the program)
    """A request that got no complete answer."""

    kind = ""


class Refused(Failure):
    """No connection could be made."""

    kind = "refused"


class Reset(Failure):
    """The connection ended before the first byte of the answer."""

    kind = "reset"


class TimedOut(Failure):
    """No complete answer came in time."""

    kind = "timeout"


class Malformed(Failure):
    """The answer began, but it is incomplete or not HTTP."""

    kind = "malformed"


@dataclass(frozen=True)
class Answer:
    """A complete answer, whose body has no chunked encoding any more."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Head:
    """First line and headers of an answer.

    Attributes:
        headers: Values by lower-case name; repeated headers are joined with a comma.
        keep: Whether the server will keep the connection open.
    """

    status: int
    headers: dict[str, str]
    keep: bool


def parse_head(data: bytes) -> Head:
    """Read the first line and the headers of an answer, which is everything before the empty line.

    Raises:
        Malformed: The data is not HTTP/1.
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest.partition(" ")[0]
    if version not in ("HTTP/1.1", "HTTP/1.0") or len(code) != len("200") or not code.isdecimal():
        raise Malformed(f"not a status line: {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed(f"not a header: {line[:80]!r}")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    options = [option.strip() for option in headers.get("connection", "").lower().split(",")]
    keep = "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)
    return Head(int(code), headers, keep)


def content_length(value: str) -> int:
    """Read a Content-Length header, in bytes; several equal values count as one.

    Raises:
        Malformed: The value is not one number.
    """
    lengths = {length.strip() for length in value.split(",")}
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdecimal()):
        raise Malformed(f"not a length: {value[:80]!r}")
    return int(length)


class Connection:
    """A client that sends one request at a time, and opens its connection when it needs one.

    Attributes:
        opened: Connections made so far.
        idle_closes: Connections that were found closed by the server before a request was sent on them.
        reused: Whether the last request was sent on a connection that had served another one before.
        keeps: Whether a connection serves several requests.
    """

    def __init__(self, target: Target, *, keeps: bool = True) -> None:
        """Prepare the client; nothing is connected yet."""
        self.keeps = keeps
        self.opened = 0
        self.idle_closes = 0
        self.reused = False
        self._target = target
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._answering = False
        self._deadline = 0.0

    def exchange(self, request: bytes, timeout: float, *, head_only: bool = False) -> Answer:
        """Send a request and wait for its answer; never sends it twice.

        Args:
            request: The whole request, with its body.
            timeout: Seconds for everything from connecting to the last byte of the answer.
            head_only: Whether the answer has no body whatever its headers say (HEAD).

        Raises:
            Failure: There was no complete answer; the class tells why, and the connection is closed.
            LoadError: This machine ran out of something, such as ports or files.
        """
        self._deadline = time.monotonic() + timeout
        self._answering = False
        try:
            self._drop_if_closed()
            self.reused = self._socket is not None
            connected = self._socket or self._connect()
            sent = self._send(connected, request)
            answer, keep = self._receive(head_only=head_only)
        except BaseException:
            self.close()
            raise
        if not (keep and sent and self.keeps):
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer.clear()

    def interrupt(self) -> None:
        """Make a waiting ``exchange`` in another thread fail at once."""
        connected = self._socket
        if connected is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def _drop_if_closed(self) -> None:
        # What a browser does too: a connection that the server has closed meanwhile is not used for a request.
        if self._socket is None:
            return
        self._socket.setblocking(False)
        try:
            # Not only looked at, which TLS cannot; whatever is read here, the connection is not used again.
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            pass
        # Closed or reset; or bytes that no request asked for, such as a 408 before closing.
        self.idle_closes += 1
        self.close()

    def _connect(self) -> socket.socket:
        failure = OSError("no address")
        for address in self._target.addresses:
            try:
                return self._connect_to(address)
            except TimeoutError as error:
                raise TimedOut("while connecting") from error
            except OSError as error:
                self.close()
                failure = error
        # Only the last one counts: where IPv6 is switched off, "localhost" begins with an address that cannot be had.
        if failure.errno in OWN_FAULTS:
            raise LoadError(f"this machine cannot open another connection: {failure}") from failure
        raise Refused(str(failure)) from failure

    def _connect_to(self, address: tuple[str, int]) -> socket.socket:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = connecting = socket.socket(family, socket.SOCK_STREAM)
        connecting.settimeout(self._remaining())
        connecting.connect(address)
        if connecting.getsockname() == connecting.getpeername():
            # TCP lets a local client meet itself on a free port; it would then also keep the server off that port.
            raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._target.tls:
            self._socket = connecting = self._target.tls.wrap_socket(connecting, server_hostname=self._target.name)
        self.opened += 1
        return connecting

    def _send(self, connected: socket.socket, request: bytes) -> bool:
        try:
            connected.settimeout(self._remaining())
            connected.sendall(request)
        except TimeoutError as error:
            raise TimedOut("while sending") from error
        except OSError:
            # A server may refuse a large body with an answer and close: whether one came is found by reading.
            return False
        return True

    def _receive(self, *, head_only: bool) -> tuple[Answer, bool]:
        head = parse_head(self._take_head())
        while 100 <= head.status < 200 and head.status != 101:  # noqa: PLR2004 (interim answers; 101 ends HTTP)
            head = parse_head(self._take_head())
        body, ended = self._receive_body(head, head_only=head_only)
        if self._buffer:
            raise Malformed(f"{len(self._buffer)} bytes after the end of the answer")
        return Answer(head.status, body), head.keep and not ended

    def _receive_body(self, head: Head, *, head_only: bool) -> tuple[bytes, bool]:
        """Return the body, and whether the end of the connection was its end."""
        coding = head.headers.get("transfer-encoding")
        length = head.headers.get("content-length")
        if coding is not None and (length is not None or coding.lower() != "chunked"):
            raise Malformed(f"Transfer-Encoding {coding[:80]!r} with Content-Length {length!r}")
        if head_only or head.status in NO_CONTENT:
            return b"", False
        if coding is not None:
            return self._take_chunks(), False
        if length is not None:
            return self._take(content_length(length)), False
        return self._take_rest(), True

    def _take_head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Malformed(f"no end of the headers in {MAX_HEAD} bytes")
            self._more()
        head = self._take(end)
        self._take(len(b"\r\n\r\n"))
        return head

    def _take_chunks(self) -> bytes:
        body = bytearray()
        while size := self._take_chunk_size():
            body += self._take(size)
            if self._take(2) != b"\r\n":
                raise Malformed("a chunk is longer than it says")
        while self._take_line():
            pass  # trailers
        return bytes(body)

    def _take_chunk_size(self) -> int:
        line = self._take_line()
        digits = line.partition(b";")[0].strip()
        try:
            size = int(digits, 16)
        except ValueError as error:
            raise Malformed(f"not a chunk size: {line[:80]!r}") from error
        if size < 0:
            raise Malformed(f"not a chunk size: {line[:80]!r}")
        return size

    def _take_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Malformed(f"no end of a line in {MAX_HEAD} bytes")
            self._more()
        line = self._take(end)
        self._take(len(b"\r\n"))
        return line

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _take_rest(self) -> bytes:
        while data := self._read():
            self._buffer += data
        return self._take(len(self._buffer))

    def _more(self) -> None:
        data = self._read()
        if not data:
            raise self._broken("closed by the server")
        self._answering = True
        self._buffer += data

    def _read(self) -> bytes:
        if self._socket is None:
            raise self._broken("closed")
        try:
            self._socket.settimeout(self._remaining())
            return self._socket.recv(RECEIVE)
        except TimeoutError as error:
            raise TimedOut("after a part of the answer" if self._answering else "without an answer") from error
        except OSError as error:
            raise self._broken(str(error)) from error

    def _broken(self, reason: str) -> Failure:
        if self._answering:
            return Malformed(f"{reason} after a part of the answer")
        return Reset(f"{reason}, {'reused' if self.reused else 'new'} connection")

    def _remaining(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining
