"""What every service has in front of its application."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from _flask_fleet.loading import Application
from _flask_fleet.logs import request_id
from _flask_fleet.work import Work

Environ = dict[str, Any]

REST_BYTES = 65536


class Body:
    """The body of an answer; its parts are made, and it is closed, in the context of its request."""

    def __init__(self, context: Context, environ: Environ, work: Work, seconds: float) -> None:
        """Prepare the body; ``begin`` calls the application.

        Args:
            context: Where the application is called.
            work: Where the request is noted.
            seconds: After how long without a part the request is late.
        """
        self.context, self.environ, self.work, self.seconds = context, environ, work, seconds
        self.body: Iterable[bytes] = ()
        self.parts: Iterator[bytes] = iter(())

    def begin(self, application: Application, start_response: Any) -> Body:
        """Call the application."""
        try:
            self.body = self._run(application, self.environ, start_response)
            self.parts = self._run(iter, self.body)
        except BaseException:
            self.work.end(self)
            raise
        return self

    def __iter__(self) -> Iterator[bytes]:
        """Return itself: a body is read once."""
        return self

    def __next__(self) -> bytes:
        """Return the next part; Granian may ask for it in another thread."""
        try:
            part: bytes = self._run(next, self.parts)
        except StopIteration:
            read_rest(self.environ)
            raise
        return part

    def close(self) -> None:
        """Let the application clean up after the request."""
        try:
            if close := getattr(self.body, "close", None):
                self._run(close)
        finally:
            self.work.end(self)

    def _run(self, step: Callable[..., Any], *arguments: object) -> Any:
        self.work.enter(self, self.seconds)
        try:
            return self.context.run(step, *arguments)
        finally:
            self.work.leave(self)


def read_rest(environ: Environ) -> None:
    """Read what the application left of a request's body.

    The servers close the connection with the rest unread: a reset overtakes the answer, and nginx loses it. There is no
    more of it than nginx lets through.
    """
    if int(environ.get("CONTENT_LENGTH") or 0):
        while environ["wsgi.input"].read(REST_BYTES):
            pass


def only_for(service: str, application: Application) -> Application:
    """Refuse a request that nginx sends to another service, whose address this replica has got."""

    def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ.get("HTTP_X_FLASK_FLEET_SERVICE", service) == service:
            return application(environ, start_response)
        # This status has nginx ask another replica where that is safe.
        return Response("This replica is of another service.\n", 503)(environ, start_response)

    return answer


class Wrapper:
    """The application as nginx, the health check and a stop need it."""

    def __init__(
        self, application: Application, *, health_path: str, ready_path: str, drain_file: Path, work: Work
    ) -> None:
        """Wrap any WSGI application.

        Args:
            health_path: Where it is asked whether it is alive.
            ready_path: Where it is asked whether it may get requests.
            drain_file: File that exists from when the container is told to stop.
            work: Where requests under way are noted.
        """
        # nginx, and nobody before it, says who the client is: with a higher count a client could forge its address.
        self.application: Application = ProxyFix(application, x_for=1, x_proto=1, x_host=1)
        self.probes = {health_path, ready_path}
        self.ready_path = ready_path
        self.drain_file = drain_file
        self.work = work

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        # A file would be sent past `Body`, outside of the request's context and with its headers alone in a packet.
        environ = {name: value for name, value in environ.items() if name != "wsgi.file_wrapper"}
        # The client's, which the host replaces if it names another; not the one that this server listens on.
        environ["SERVER_PORT"] = "443" if environ.get("HTTP_X_FORWARDED_PROTO", "").endswith("https") else "80"
        context = copy_context()
        context.run(request_id.set, environ.get("HTTP_X_REQUEST_ID") or "-")
        self.work.answer()
        answer, seconds = self.application, self.work.request_seconds
        if environ.get("PATH_INFO") in self.probes and environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            # Whoever asks so does not keep the application busy.
            answer, seconds = self.probe, 0.0
        elif "HTTP_UPGRADE" in environ:
            # What is said over a WebSocket is not seen here.
            seconds = math.inf
        return Body(context, environ, self.work, seconds).begin(answer, start_response)

    def probe(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Say whether the application is alive or ready, also where it has no such page.

        The answer is the application's own when that is a success or its own failure; else the application serves, and
        the answer is 200. It is 503 at ``ready_path`` while the drain file exists.
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
