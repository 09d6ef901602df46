"""A small Flask app that shows which replica answered, so that load balancing can be seen."""

import os
import socket
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface

from hello import assets, views


class SessionCookie(SecureCookieSessionInterface):
    """Keeps the session in a signed cookie, which never leaves HTTPS where it was got by HTTPS."""

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 (Flask's signature)
        """Tell whether browsers may send the cookie by HTTPS only.

        :param app: the application
        :return: whether this request came by HTTPS
        """
        return request.is_secure


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the application (the application factory).

    :param config: settings that replace those from the environment, mainly for tests
    :return: the Flask application, ready to be served
    """
    app = Flask(__name__)
    app.config.from_mapping(settings_from_environment())
    app.config.from_mapping(config or {})
    app.session_interface = SessionCookie()

    if host := app.config["REDIS_HOST"]:
        # Only then, because every replica would have the client's memory.
        visits = import_module("hello.visits")
        app.extensions["visits"] = visits.Visits(host, app.config["REDIS_PASSWORD"], app.config["CONTAINER_ID"])
    assets.init_app(app)
    app.register_blueprint(views.blueprint)
    return app


def settings_from_environment() -> dict[str, Any]:
    """Read the settings that the container is started with.

    :return: configuration keys and their values
    """
    return {
        # Docker gives a container its short id as host name.
        "CONTAINER_ID": socket.gethostname(),
        "RELEASE": os.environ.get("RELEASE", "dev"),
        "SECRET_KEY": read_secret("secret_key"),
        # Where visits are counted; empty: nowhere.
        "REDIS_HOST": (redis_host := os.environ.get("REDIS_HOST", "")),
        "REDIS_PASSWORD": read_secret(f"{redis_host}_password"),
        "SESSION_COOKIE_SAMESITE": "Lax",
        # POST /whoami reads the body into memory.
        "MAX_CONTENT_LENGTH": 1024 * 1024,
    }


def read_secret(name: str) -> str | None:
    """Read a secret from the file that the container was given, so that no environment shows it.

    :param name: its name
    :return: its value, or None when there is no such file
    """
    file = Path(os.environ.get("SECRETS_FOLDER", "/run/secrets"), name)
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None
