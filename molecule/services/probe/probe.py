"""A Flask app that knows nothing of this project: it takes files, streams, and answers late and at length."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from typing import IO

import psycopg
from flask import Blueprint, Flask, Response, current_app, jsonify, request

VERSION = 1
CHUNK_BYTES = 65536

probe = Blueprint("probe", __name__)


def create_app() -> Flask:
    """Make the application, whose pages are below the path that PREFIX names."""
    app = Flask(__name__)
    app.register_blueprint(probe, url_prefix=os.environ.get("PREFIX"))
    return app


@probe.route("/whoami", methods=["GET", "POST"])
def whoami() -> Response:
    """Tell which container answers, and what it knows about the client."""
    return jsonify(
        container=socket.gethostname(),
        version=VERSION,
        client=request.remote_addr,
        url=request.url,
        request_id=request.headers.get("X-Request-ID"),
    )


@probe.post("/form")
def form() -> Response:
    """Receive a file from a form, as a page with an upload does."""
    return jsonify(sha256=_digest(request.files["file"].stream))


@probe.post("/body")
def body() -> Response:
    """Receive a body piece by piece."""
    return jsonify(sha256=_digest(request.stream))


def _digest(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while part := content.read(CHUNK_BYTES):
        digest.update(part)
    return digest.hexdigest()


@probe.get("/stream/<int:seconds>")
def stream(seconds: int) -> Response:
    """Send a line each second."""

    def lines() -> Iterator[str]:
        for second in range(seconds):
            yield f"{second}\n"
            time.sleep(1)
        yield "end\n"

    # Only what is asked to stay with the server as it is needs this; a service with `streaming` does not.
    headers = {"X-Accel-Buffering": "no"} if "unbuffered" in request.args else {}
    return Response(lines(), mimetype="text/plain", headers=headers)


@probe.get("/bytes/<int:count>")
def some_bytes(count: int) -> Response:
    """Answer with so many bytes."""
    return Response(b"\x00" * count, mimetype="application/octet-stream")


@probe.route("/headers/<int:count>/<int:size>", methods=["GET", "POST"])
def headers(count: int, size: int) -> Response:
    """Answer in two parts, with so many cookies of so many characters."""
    response = Response(iter(["a", "b"]))
    for number in range(count):
        response.set_cookie(f"c{number}", "x" * size)
    return response


@probe.get("/folder/")
def folder() -> Response:
    """Be the target of Flask's redirect for a path without its last slash."""
    return Response("folder")


@probe.get("/sleep/<int:seconds>")
def sleep(seconds: int) -> Response:
    """Answer late, and say so in the log."""
    time.sleep(seconds)
    current_app.logger.warning("slept")
    return jsonify(container=socket.gethostname())


@probe.get("/guests")
def guests() -> Response:
    """Read what is in the database."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as database:
        rows = database.execute("SELECT name FROM guest ORDER BY name").fetchall()
        migrations = database.execute("SELECT count(*) FROM migration").fetchone()
    return jsonify(guests=[name for (name,) in rows], migrations=migrations[0] if migrations else 0)


@probe.post("/guests/<name>")
def add_guest(name: str) -> Response:
    """Write into the database."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as database:
        database.execute("INSERT INTO guest VALUES (%s)", [name])
    return jsonify(name=name)
