"""Stands between an AWS client and moto."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

from rehearsal import CREDENTIAL
from rehearsal.access import asks, refusal
from rehearsal.calls import Call, read_call
from rehearsal.errors import RehearsalError
from rehearsal.faults import Faults
from rehearsal.policy import ANYTHING, Ask, Policy

LOG = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

REASONS = {400: "Bad Request", 403: "Forbidden", 500: "Internal Server Error", 503: "Service Unavailable"}


def error_body(call: Call, code: str, message: str) -> bytes:
    """Write an error as AWS does: JSON or XML, as the caller speaks, and EC2's own form of XML."""
    if call.json:
        return json.dumps({"__type": code, "message": message}).encode()
    told = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    request = f"{uuid4()}"
    if call.service == "ec2":
        text = f"<Response><Errors><Error>{told}</Error></Errors><RequestID>{request}</RequestID></Response>"
    else:
        kind = "<Type>Sender</Type>"
        text = f"<ErrorResponse><Error>{kind}{told}</Error><RequestId>{request}</RequestId></ErrorResponse>"
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + text.encode()


def refuse(start_response: Callable[..., Any], call: Call, status: int, code: str, message: str) -> bytes:
    """Answer with an error of AWS over WSGI, and return the body."""
    body = error_body(call, code, message)
    kind = "application/x-amz-json-1.1" if call.json else "text/xml;charset=UTF-8"
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(f"{status} {REASONS[status]}", headers)
    return body


class Recorder:
    """Writes down every call, to compare what is done with what a policy allows."""

    def __init__(self, path: Path) -> None:
        """Write to a file, to which each call adds one line with a JSON object."""
        self._path = path
        self._lock = threading.Lock()

    def note(self, call: Call, status: str) -> None:
        """Write down a call; ``status`` is the HTTP status of the answer, with its reason."""
        told = {
            "time": f"{datetime.now(UTC).isoformat(timespec='milliseconds')}",
            "service": call.service,
            "action": call.action,
            "region": call.region,
            "status": int(status.partition(" ")[0]),
            "needs": call.permissions(),
            "user": call.user,
        }
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


class Front:
    """Sees every call: what it changed is carried out and kept before the client hears of it."""

    def __init__(
        self,
        application: Application,
        changed: Callable[[bool], None],
        faults: Faults,
        recorder: Recorder,
        policy: Callable[[], Policy] = lambda: ANYTHING,
    ) -> None:
        """Stand in front of moto.

        Args:
            changed: Called after each call that may have changed something.
            policy: What the user of the dummy credentials may do at the moment; other credentials may do everything.
        """
        self._application = application
        self._changed = changed
        self._faults = faults
        self._recorder = recorder
        self._policy = policy

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        call = read_call(environ)
        head: list[Any] = []

        def note_head(*arguments: Any) -> None:
            head[:] = arguments

        body = self._fault(call, note_head) or self._pass_on(call, environ, note_head)
        self._recorder.note(call, str(head[0]))
        start_response(*head)
        return [body]

    def _fault(self, call: Call, start_response: Callable[..., Any]) -> bytes:
        """Answer with an error if one was asked for; the result is empty otherwise."""
        if self._faults.throttles(call.name):
            status, code = (503, "RequestLimitExceeded") if call.service == "ec2" else (400, "Throttling")
            return refuse(start_response, call, status, code, "Request limit exceeded.")
        forbidden = self._forbidden(call)
        if forbidden:
            return refuse(start_response, call, *refusal(call, forbidden))
        wrong = self._faults.refusal(call.name)
        if wrong:
            return refuse(start_response, call, 400, wrong.code, wrong.words)
        if call.name not in {"ec2:RunInstances", "ec2:StartInstances"}:
            return b""
        wanted = call.parameters.get("InstanceType", "")
        zone = call.parameters.get("Placement.AvailabilityZone", "")
        if not self._faults.lacks_capacity(wanted, zone):
            return b""
        where = f"in the Availability Zone you requested ({zone})" if zone else "in any zone"
        message = f"We currently do not have sufficient {wanted or 'instance'} capacity {where}."
        return refuse(start_response, call, 500, "InsufficientInstanceCapacity", message)

    def _forbidden(self, call: Call) -> Ask | None:
        policy = self._policy()
        if call.user != CREDENTIAL:
            return None
        return next((ask for ask in asks(call) if not policy.allows(ask)), None)

    def _pass_on(self, call: Call, environ: dict[str, Any], start_response: Callable[..., Any]) -> bytes:
        answer = self._application(environ, start_response)
        body = b"".join(answer)
        getattr(answer, "close", lambda: None)()
        if call.changes:
            try:
                self._changed(False)
            except RehearsalError as error:
                LOG.exception("%s", call.name)
                return refuse(start_response, call, 500, "InternalError", str(error))
        return body
