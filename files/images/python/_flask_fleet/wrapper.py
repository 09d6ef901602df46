"""What every service gets in front of its application."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from _flask_fleet.loading import Application
from _flask_fleet.logs import request_id

Environ = dict[str, Any]

REST_BYTES = 65536


class Body:
    """An answer's body whose parts are made, and which is closed, in the context of its request."""

    def __init__(self, context: Context, body: Iterable[bytes], environ: Environ) -> None:
        """Begin with the first part.

        Args:
            context: Where the application was called.
            body: What it returned.
            environ: The request.
        """
        self.context, self.body, self.environ = context, body, environ
        self.parts: Iterator[bytes] = context.run(iter, body)

    def __iter__(self) -> Iterator[bytes]:
        """Return itself: a body is read once."""
        return self

    def __next__(self) -> bytes:
        """Return the next part; Granian may ask for it in another thread."""
        try:
            return self.context.run(next, self.parts)
        except StopIteration:
            read_rest(self.environ)
            raise

    def close(self) -> None:
        """Let the application clean up after the request."""
        if close := getattr(self.body, "close", None):
            self.context.run(close)


def read_rest(environ: Environ) -> None:
    """Read what the application left of a request's body.

    The servers close the connection with the rest unread: a reset overtakes the answer, and nginx loses it. There is no
    more of it than nginx lets through.

    Args:
        environ: The request.
    """
    if int(environ.get("CONTENT_LENGTH") or 0):
        while environ["wsgi.input"].read(REST_BYTES):
            pass


class Wrapper:
    """The application as nginx, the health check and a stop need it."""

    def __init__(self, application: Application, *, health_path: str, ready_path: str, drain_file: Path) -> None:
        """Wrap an application.

        Args:
            application: Any WSGI application.
            health_path: Where it is asked whether it is alive.
            ready_path: Where it is asked whether it may get requests.
            drain_file: Exists from when the container is told to stop.
        """
        # nginx, and nobody before it, says who the client is: with a higher count a client could forge its address.
        self.application: Application = ProxyFix(application, x_for=1, x_proto=1, x_host=1)
        self.probes = {health_path, ready_path}
        self.ready_path = ready_path
        self.drain_file = drain_file

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request, as WSGI has it.

        Args:
            environ: The request.
            start_response: Takes the status and the headers.

        Returns:
            The answer's body.
        """
        # A file would be sent past `Body`, outside of the request's context and with its headers alone in a packet.
        environ = {name: value for name, value in environ.items() if name != "wsgi.file_wrapper"}
        # The client's, which the host replaces if it names another; not the one that this server listens on.
        environ["SERVER_PORT"] = "443" if environ.get("HTTP_X_FORWARDED_PROTO", "").endswith("https") else "80"
        context = copy_context()
        context.run(request_id.set, environ.get("HTTP_X_REQUEST_ID") or "-")
        is_probe = environ.get("PATH_INFO") in self.probes and environ["REQUEST_METHOD"] in {"GET", "HEAD"}
        answer = self.probe if is_probe else self.application
        return Body(context, context.run(answer, environ, start_response), environ)

    def probe(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Say whether the application is alive or ready, also where it has no such page.

        Args:
            environ: The request.
            start_response: Takes the status and the headers.

        Returns:
            The application's own answer when that is a success or its own failure. Else it serves: 200.
        """
        if environ["PATH_INFO"] == self.ready_path and self.drain_file.exists():
            answer = Response("draining\n", 503, {"Cache-Control": "no-store"}, mimetype="text/plain")
            return answer(environ, start_response)
        answer = Response.from_app(self.application, environ, buffered=True)
        if 300 <= answer.status_code < 500:  # noqa: PLR2004 (elsewhere, or not found, or not allowed: it answers)
            answer = Response("ok\n", 200, {"Cache-Control": "no-store"}, mimetype="text/plain")
        if environ["PATH_INFO"] != self.ready_path:
            # So that the deploy can see that all of them answer; Docker gives a container its short id as host name.
            answer.headers["X-Replica"] = socket.gethostname()
        return answer(environ, start_response)
