"""What all tests of the app share."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hello import create_app


@pytest.fixture
def app() -> Flask:
    """Make the app as a replica with a known identity."""
    return create_app({"TESTING": True, "CONTAINER_ID": "0123456789ab", "RELEASE": "r42"})


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Make a client that talks to the app without a network."""
    return app.test_client()
