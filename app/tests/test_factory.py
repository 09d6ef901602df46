"""The application factory and its settings."""

import socket

import pytest
import wsgi
from flask import Flask

from hello import create_app


def test_identity_is_the_host_name_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings a replica is named by its host name and its release is `dev`."""
    monkeypatch.delenv("RELEASE", raising=False)
    config = create_app().config
    assert (config["CONTAINER_ID"], config["RELEASE"]) == (socket.gethostname(), "dev")


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's environment names the release."""
    monkeypatch.setenv("RELEASE", "r7")
    assert create_app().config["RELEASE"] == "r7"


def test_config_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller passes replaces what the environment says."""
    monkeypatch.setenv("RELEASE", "r7")
    assert create_app({"RELEASE": "r8"}).config["RELEASE"] == "r8"


def test_wsgi_module_offers_the_app() -> None:
    """A service that names no application has `wsgi:app`."""
    assert isinstance(wsgi.app, Flask)
