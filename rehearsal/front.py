"""What stands between an AWS client and moto."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

from rehearsal.calls import Call, read_call
from rehearsal.errors import RehearsalError

LOG = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

REASONS = {400: "Bad Request", 500: "Internal Server Error", 503: "Service Unavailable"}


def error_body(call: Call, code: str, message: str) -> bytes:
    """Write an error as AWS does.

    Args:
        call: What was asked; EC2's errors look different from the others'.
        code: For example ``RequestLimitExceeded``.
        message: For a person.

    Returns:
        XML.
    """
    told = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    request = f"{uuid4()}"
    if call.service == "ec2":
        text = f"<Response><Errors><Error>{told}</Error></Errors><RequestID>{request}</RequestID></Response>"
    else:
        kind = "<Type>Sender</Type>"
        text = f"<ErrorResponse><Error>{kind}{told}</Error><RequestId>{request}</RequestId></ErrorResponse>"
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()


def refuse(start_response: Callable[..., Any], call: Call, status: int, code: str, message: str) -> list[bytes]:
    """Answer with an error.

    Args:
        start_response: Of WSGI.
        call: What was asked.
        status: HTTP status.
        code: AWS error code.
        message: For a person.

    Returns:
        The body.
    """
    body = error_body(call, code, message)
    headers = [("Content-Type", "text/xml;charset=UTF-8"), ("Content-Length", str(len(body)))]
    start_response(f"{status} {REASONS[status]}", headers)
    return [body]


class Front:
    """Sees every call: what it changed is carried out and kept before the client hears of it."""

    def __init__(self, application: Application, changed: Callable[[bool], None]) -> None:
        """Stand before an application.

        Args:
            application: moto.
            changed: Called after each call that may have changed something.
        """
        self._application = application
        self._changed = changed

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        call = read_call(environ)
        if not call.changes:
            return self._application(environ, start_response)
        head: list[Any] = []
        body = b"".join(self._application(environ, lambda *arguments: head.extend(arguments)))
        try:
            self._changed(False)
        except RehearsalError as error:
            LOG.exception("%s:%s", call.service, call.action)
            return refuse(start_response, call, 500, "InternalError", str(error))
        start_response(*head)
        return [body]
