"""Log records that name the request which they belong to."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar

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
    """Give every log record the request's id, and every one from INFO on to stderr.

    An app that sets up its own logging replaces the second; its format may use ``%(fleet_request_id)s``. No app would
    choose that name, and logging refuses an ``extra`` of a name that a record has already.
    """
    make = logging.getLogRecordFactory()

    def with_request_id(*arguments: object, **more: object) -> logging.LogRecord:
        record = make(*arguments, **more)
        record.fleet_request_id = request_id.get()
        return record

    logging.setLogRecordFactory(with_request_id)
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
