"""The gunicorn settings that others depend on."""

import runpy
from pathlib import Path
from typing import Any

import pytest

CONFIG_FILE = Path(__file__).parent.parent / "gunicorn.conf.py"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Execute the configuration with the GUNICORN_CMD_ARGS of the test's parameter."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", getattr(request, "param", ""))
    return runpy.run_path(str(CONFIG_FILE))


def test_balancer_can_rely_on_it(settings: dict[str, Any]) -> None:
    """The address, the keep-alive longer than nginx's 60 s, and no second access log."""
    assert settings["bind"] == "0.0.0.0:5000"
    assert settings["worker_class"] == "gthread"
    assert settings["keepalive"] > 60
    assert settings["accesslog"] is None
    assert settings["reuse_port"] is False


@pytest.mark.parametrize(
    ("settings", "preload"),
    [
        ("", False),
        ("--threads 8", False),
        ("--workers 1", False),
        ("--workers 2 --threads 8", True),
        ("-w 3", True),
        ("--workers=4", True),
    ],
    indirect=["settings"],
)
def test_app_is_preloaded_only_for_several_workers(settings: dict[str, Any], preload: bool) -> None:
    """The server applies GUNICORN_CMD_ARGS after the file, but preloading has to be known in the file."""
    assert settings["preload_app"] is preload
