"""The pages and the JSON answers."""

import os
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, render_template, request, session
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

blueprint = Blueprint("hello", __name__)


@blueprint.after_request
def forbid_caching(response: Response) -> Response:
    """Keep every cache out: each of these answers is about the replica that gave it, at this moment.

    :param response: the answer of one of this blueprint's views
    :return: the same answer, not to be stored
    """
    response.cache_control.no_store = True
    return response


@blueprint.get("/")
def index() -> str:
    """Greet, show who answered, and offer the live view.

    :return: the page
    """
    return render_template("index.html", replica=describe_replica(), visits=count_visit(), **counted(1))


@blueprint.get("/healthz")
def healthz() -> Response:
    """Tell that this process serves requests (liveness); no side effects, nothing else is asked.

    :return: always the same JSON
    """
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Tell whether the balancer should send requests here (readiness); while a stop is announced, it is not asked.

    :return: always the same JSON
    """
    return jsonify(ready=True)


@blueprint.route("/whoami", methods=["GET", "POST"])
def whoami() -> Response:
    """Tell which replica answered; a POST also tells how many bytes of body arrived, for load tests.

    :return: the replica as JSON
    """
    answer = describe_replica() | counted(0)
    if request.method == "POST":
        answer["body_bytes"] = len(request.get_data(cache=False))
    return jsonify(answer)


@blueprint.app_errorhandler(NotFound)
def not_found(_error: NotFound) -> ResponseReturnValue:
    """Answer for an address that does not exist.

    :param _error: what the router raised; the page needs nothing of it
    :return: a small page with status 404
    """
    return render_template("404.html", replica=describe_replica()), NotFound.code, {"Cache-Control": "no-store"}


def count_visit() -> int | None:
    """Count this visit in the visitor's session, which every replica can read that has the same secret key.

    :return: how many visits there were, or None without a secret key
    """
    if not current_app.secret_key:
        return None
    visits = int(session.get("visits", 0)) + 1
    session["visits"] = visits
    return visits


def counted(more: int) -> dict[str, Any]:
    """Count visits of all visitors, where the app is given a Redis.

    :param more: how many to add
    :return: the numbers under the key `counted`, or that they cannot be reached; nothing without a Redis
    """
    counter = current_app.extensions.get("visits")
    return {"counted": counter.count(more) or "not reachable"} if counter else {}


def describe_replica() -> dict[str, Any]:
    """Describe the container and the process that handle the current request.

    :return: container, release, server and pid
    """
    return {
        "container": current_app.config["CONTAINER_ID"],
        "release": current_app.config["RELEASE"],
        "server": server_software(request.environ),
        "pid": os.getpid(),
    }


def server_software(environ: dict[str, Any]) -> str:
    """Name the server that runs the app.

    :param environ: the WSGI environment of a request
    :return: name and version, for example `gunicorn/27.0.1`
    """
    # uWSGI leaves out SERVER_SOFTWARE, but adds its version (as bytes) under a name of its own.
    if version := environ.get("uwsgi.version"):
        return f"uwsgi/{version.decode() if isinstance(version, bytes) else version}"
    return str(environ.get("SERVER_SOFTWARE", "unknown"))
