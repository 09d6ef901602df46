"""What all tests of the app share."""

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hello import create_app


@pytest.fixture
def drain_file(tmp_path: Path) -> Path:
    """Name a drain file that does not exist yet."""
    return tmp_path / "draining"


@pytest.fixture
def app(drain_file: Path) -> Flask:
    """Make the app as a replica with a known identity."""
    return create_app(
        {"TESTING": True, "CONTAINER_ID": "0123456789ab", "RELEASE": "r42", "DRAIN_FILE": str(drain_file)}
    )


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Make a client that talks to the app without a network."""
    return app.test_client()
