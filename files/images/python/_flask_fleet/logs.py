"""Log records that name the request which they belong to."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from typing import Any

FORMAT = "%(asctime)s %(levelname)s %(fleet_request_id)s %(name)s: %(message)s"

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""What nginx calls the request that is being handled here; its access log has it too."""


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter(FORMAT)
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    return formatter


def install() -> None:
    """Give every log record the request's id, and have every one from INFO on written to stderr.

    An app that sets up its own logging replaces the second; its format may use ``%(fleet_request_id)s``. No app would
    choose that name, and logging refuses an ``extra`` of a name that a record has already.

    The id is added by the first handler that gets the record, because not every record is made by the factory of
    records: an app may set one of its own, make records itself, or get them from another process.
    """
    handle = logging.Handler.handle

    def handle_with_request_id(handler: logging.Handler, record: logging.LogRecord) -> Any:
        record.__dict__.setdefault("fleet_request_id", request_id.get())
        return handle(handler, record)

    logging.Handler.handle = handle_with_request_id  # type: ignore[assignment,method-assign]
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
