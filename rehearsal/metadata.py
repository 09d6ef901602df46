"""The instance metadata service, as an instance sees it at 169.254.169.254.

The packet filter leads that address to this machine's own address in the instances' network, and the sender's address
tells which instance asks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

LOG = logging.getLogger(__name__)

Tree = Mapping[str, "Tree | str"]
"""Directories and files, by name."""

VERSION = re.compile(r"latest|1\.0|20\d\d-\d\d-\d\d")

TOKEN_PATH = "api/token"  # noqa: S105 (a path)

LONGEST = 21600
"""Seconds that a token may be valid."""


@dataclass(frozen=True)
class Options:
    """How an instance's metadata may be read.

    Attributes:
        enabled: Whether at all.
        tokens_required: Whether only with a token (IMDSv2).
        hops: How far the answer with the token may travel; 1 does not reach a container.
    """

    enabled: bool = True
    tokens_required: bool = False
    hops: int = 1


@dataclass(frozen=True)
class Subject:
    """One instance, as it may know itself; ``tree`` is what there is to read below ``latest``."""

    instance_id: str
    options: Options = field(default_factory=Options)
    tree: Tree = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; ``hops`` is how far it may travel, and None for as far as it likes."""

    status: HTTPStatus
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    hops: int | None = None


class Service:
    """Answers requests; knows nothing of sockets."""

    def __init__(self, secret: str, subject_at: Callable[[str], Subject | None]) -> None:
        """Find instances by address; the secret signs the tokens, which are therefore valid after a restart too."""
        self._secret = secret.encode()
        self._subject_at = subject_at

    def answer(self, source: str, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        """Answer one request as AWS would.

        Args:
            source: Address of the sender.
            path: Path with a leading slash.
            headers: Header values by name in small letters.
        """
        subject = self._subject_at(source)
        if subject is None or not subject.options.enabled:
            return Answer(HTTPStatus.FORBIDDEN)
        version, _, rest = path.partition("?")[0].lstrip("/").partition("/")
        if method == "PUT" and rest == TOKEN_PATH:
            return self._token(subject, headers)
        if method not in {"GET", "HEAD"}:
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED)
        token = headers.get("x-aws-ec2-metadata-token")
        if (token is None and subject.options.tokens_required) or (
            token is not None and not self._is_valid(subject, token)
        ):
            return Answer(HTTPStatus.UNAUTHORIZED)
        if not version:
            return Answer(HTTPStatus.OK, "1.0\n2021-03-23\nlatest")
        found = find(subject.tree, rest) if VERSION.fullmatch(version) else None
        return Answer(HTTPStatus.NOT_FOUND) if found is None else Answer(HTTPStatus.OK, found)

    def _token(self, subject: Subject, headers: Mapping[str, str]) -> Answer:
        if "x-forwarded-for" in headers:  # a proxy was talked into asking
            return Answer(HTTPStatus.FORBIDDEN)
        lifetime = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not lifetime.isdigit() or not 1 <= int(lifetime) <= LONGEST:
            return Answer(HTTPStatus.BAD_REQUEST)
        token = self._sign(subject, int(time.time()) + int(lifetime))
        back = {"X-aws-ec2-metadata-token-ttl-seconds": lifetime}
        return Answer(HTTPStatus.OK, token, back, subject.options.hops)

    def _sign(self, subject: Subject, end: int) -> str:
        until = struct.pack(">Q", end)
        digest = hmac.new(self._secret, until + subject.instance_id.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(until + digest).decode()

    def _is_valid(self, subject: Subject, token: str) -> bool:
        try:
            (end,) = struct.unpack(">Q", base64.urlsafe_b64decode(token)[:8])
        except (ValueError, struct.error):
            return False
        return end > time.time() and hmac.compare_digest(self._sign(subject, end).encode(), token.encode())


def find(tree: Tree, path: str) -> str | None:
    """Read a file or list a directory, at a path of names with slashes between them; None when there is nothing."""
    here: Tree | str = tree
    for name in filter(None, path.split("/")):
        if isinstance(here, str) or name not in here:
            return None
        here = here[name]
    return here if isinstance(here, str) else listing(here)


def listing(directory: Tree) -> str:
    """List a directory as AWS does, with one name per line.

    Directories end with a slash, and keys are shown with their names.
    """
    lines = []
    for name, entry in sorted(directory.items()):
        match entry:
            case {"openssh-key": str(key)}:
                lines.append(f"{name}={key.split()[-1] if len(key.split()) > 2 else 'key'}")  # noqa: PLR2004 (type, key, name)
            case str():
                lines.append(name)
            case _:
                lines.append(f"{name}/")
    return "\n".join(lines)


def server(address: str, port: int, service: Service) -> ThreadingHTTPServer:
    """Make the HTTP server on this machine's address in the instances' network; it is bound, but does not serve yet."""

    class Handler(BaseHTTPRequestHandler):
        """One connection."""

        protocol_version = "HTTP/1.1"
        server_version = "EC2ws"
        sys_version = ""
        timeout = 30

        def do_GET(self) -> None:
            """Answer any request."""
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = service.answer(str(self.client_address[0]), self.command, self.path, headers)
            body = answer.text.encode()
            if answer.hops is not None:
                # For the rest of the connection: what is sent again must not travel further either.
                self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, answer.hops)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 (the names that http.server calls)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in http.server)
            """Write to the log of the API process."""
            LOG.info("%s %s", self.client_address[0], format % args)

    return _Server((address, port), Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking a name server who we are."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
