"""How gunicorn sends an answer."""

from __future__ import annotations

from typing import Any

from gunicorn.http import wsgi


class Collected(bytearray):
    """Takes the place of a socket and keeps what is sent."""

    sendall = bytearray.extend


class Response(wsgi.Response):  # type: ignore[misc]
    """Sends the header together with the first part of the body; gunicorn would send it alone.

    Between two sends another thread may get the interpreter for milliseconds. A process that is killed there leaves the
    balancer a header without a body, and it is too late to ask another replica.
    """

    def write(self, data: bytes) -> None:
        """Send a part of the body, the first one with the header."""
        if self.headers_sent:
            super().write(data)
            return
        connection: Any = self.sock
        self.sock: Any = Collected()
        try:
            super().write(data)
            connection.sendall(self.sock)
        finally:
            self.sock = connection


def install() -> None:
    """Have gunicorn send every response in this way."""
    wsgi.Response = Response
