"""A small Flask app that shows which replica answered, so that load balancing can be seen."""

import os
import socket
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface
from werkzeug.middleware.proxy_fix import ProxyFix

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
    trust_proxies(app, app.config["TRUSTED_PROXIES"])
    return app


def settings_from_environment() -> dict[str, Any]:
    """Read the settings that the container is started with.

    :return: configuration keys and their values
    """
    return {
        # Docker gives a container its short id as host name.
        "CONTAINER_ID": socket.gethostname(),
        "RELEASE": os.environ.get("RELEASE", "dev"),
        "DRAIN_FILE": os.environ.get("DRAIN_FILE", "/dev/shm/draining"),  # noqa: S108 (only this container sees it)
        "SECRET_KEY": read_secret("secret_key"),
        # Where visits are counted; empty: nowhere.
        "REDIS_HOST": (redis_host := os.environ.get("REDIS_HOST", "")),
        "REDIS_PASSWORD": read_secret(f"{redis_host}_password"),
        "SESSION_COOKIE_SAMESITE": "Lax",
        "TRUSTED_PROXIES": os.environ.get("TRUSTED_PROXIES", "1"),
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


def trust_proxies(app: Flask, count: int | str) -> None:
    """Believe the forwarded headers of exactly the proxies that stand in front of the app.

    With a higher count a client could forge its address, with a lower one every client would look like the proxy.

    :param app: the application to wrap
    :param count: how many proxies add to the X-Forwarded-* headers; 0 for none
    :raises ValueError: if the count is not a whole number from 0 on
    """
    if not str(count).isdecimal():
        raise ValueError(f"TRUSTED_PROXIES is {count!r}, it must be a whole number: 0, 1, 2, ...")
    proxies = int(count)
    if proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )
