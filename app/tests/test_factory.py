"""The application factory: its settings, and how it treats proxies."""

import socket

import pytest
import wsgi
from flask import Flask, Response, jsonify, request
from werkzeug.middleware.proxy_fix import ProxyFix

from hello import create_app

FORWARDED = {
    "X-Forwarded-For": "203.0.113.1, 203.0.113.2, 203.0.113.3",
    "X-Forwarded-Proto": "gopher, http, https",
    "X-Forwarded-Host": "one.example, two.example, three.example",
}


def test_identity_is_the_host_name_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings a replica is named by its host name and its release is `dev`."""
    monkeypatch.delenv("RELEASE", raising=False)
    config = create_app().config
    assert (config["CONTAINER_ID"], config["RELEASE"]) == (socket.gethostname(), "dev")


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's environment sets release and drain file."""
    monkeypatch.setenv("RELEASE", "r7")
    monkeypatch.setenv("DRAIN_FILE", "/run/elsewhere")
    config = create_app().config
    assert (config["RELEASE"], config["DRAIN_FILE"]) == ("r7", "/run/elsewhere")


def test_config_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller passes replaces what the environment says."""
    monkeypatch.setenv("RELEASE", "r7")
    assert create_app({"RELEASE": "r8"}).config["RELEASE"] == "r8"


def seen_by(app: Flask) -> tuple[str, str, str]:
    """Ask an app, through forwarded headers of three proxies, which client it believes to serve."""

    @app.get("/seen")
    def seen() -> Response:
        return jsonify(address=request.remote_addr, scheme=request.scheme, host=request.host)

    answer = app.test_client().get("/seen", headers=FORWARDED).get_json()
    return answer["address"], answer["scheme"], answer["host"]


@pytest.mark.parametrize(
    ("count", "believed"),
    [
        ("0", ("127.0.0.1", "http", "localhost")),
        ("1", ("203.0.113.3", "https", "three.example")),
        ("2", ("203.0.113.2", "http", "two.example")),
    ],
)
def test_exactly_the_configured_proxies_are_believed(
    monkeypatch: pytest.MonkeyPatch, count: str, believed: tuple[str, str, str]
) -> None:
    """Each trusted proxy adds one value at the end; what stands further left may be forged."""
    monkeypatch.setenv("TRUSTED_PROXIES", count)
    assert seen_by(create_app()) == believed


def test_one_proxy_is_trusted_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The normal case is one nginx in front."""
    monkeypatch.delenv("TRUSTED_PROXIES", raising=False)
    app = create_app()
    assert isinstance(app.wsgi_app, ProxyFix)
    assert seen_by(app) == ("203.0.113.3", "https", "three.example")


@pytest.mark.parametrize("count", ["-1", "two", "", "1.5"])
def test_wrong_number_of_proxies_is_refused(count: str) -> None:
    """A wrong count must stop the start, not silently trust nobody or everybody."""
    with pytest.raises(ValueError, match=r"TRUSTED_PROXIES is .* it must be a whole number"):
        create_app({"TRUSTED_PROXIES": count})


def test_wsgi_module_offers_the_app() -> None:
    """`gunicorn wsgi:app` finds the application object."""
    assert isinstance(wsgi.app, Flask)
