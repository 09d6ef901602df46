"""The gunicorn settings that others depend on."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

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


def test_port_is_the_one_that_the_container_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every service of a stack has a port of its own."""
    monkeypatch.setenv("PORT", "12345")
    assert runpy.run_path(str(CONFIG_FILE))["bind"] == "0.0.0.0:12345"


class Packets:
    """A socket that remembers each send."""

    def __init__(self) -> None:
        """Begin with nothing sent."""
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Remember what is sent."""
        self.sent.append(bytes(data))


@pytest.mark.parametrize(
    ("length", "first", "second"),
    [("4", b"\r\n\r\nab", b"cd"), (None, b"\r\n\r\n2\r\nab\r\n", b"2\r\ncd\r\n")],
    ids=["known length", "streamed"],
)
def test_header_is_never_sent_alone(settings: dict[str, Any], length: str | None, first: bytes, second: bytes) -> None:
    """A replica that is killed between header and body cannot be replaced by another; a stream is not held back."""
    config, request, packets = Config(), SimpleNamespace(version=(1, 1), method="GET", should_close=bool), Packets()
    response = settings["Response"](request, packets, config)
    response.start_response("200 OK", [("Content-Length", length)] if length else [])
    response.write(b"ab")
    response.write(b"cd")
    assert [packets.sent[0].startswith(b"HTTP/1.1 200 OK\r\n"), packets.sent[0].endswith(first)] == [True, True]
    assert packets.sent[1:] == [second]


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
