"""Load over HTTPS: certificates are checked, and a kept connection is one."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.load import Load, LoadError
from bench.load.connection import Connection, Refused
from bench.load.target import Target, find_target
from tests.bench.load.server import BODY
from tests.self_signed import self_signed, serving

NAME = "www.fleet.test"
REQUEST = b"GET /whoami HTTP/1.1\r\nHost: www.fleet.test\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for the name."""
    return self_signed(tmp_path_factory.mktemp("tls"), NAME)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers over a kept connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def port(certificate: Path) -> Iterator[int]:
    """Start a server with that certificate; it sends session tickets after the handshake, as nginx does."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = serving(certificate).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def target(port: int, name: str, certificate: Path) -> Target:
    """Return the server at 127.0.0.1 as the target with this name."""
    return find_target(f"https://{name}:{port}", anywhere=False, address="127.0.0.1", authorities=str(certificate))


def test_connection_is_kept(port: int, certificate: Path) -> None:
    """TLS session tickets, which come unasked, are neither an answer nor the end of a connection."""
    client = Connection(target(port, NAME, certificate))
    assert [client.exchange(REQUEST, 5).body for _ in range(3)] == [BODY] * 3
    assert (client.opened, client.idle_closes) == (1, 0)
    client.close()


def test_certificate_for_another_name_is_refused(port: int, certificate: Path) -> None:
    """A server that changes to a wrong certificate under load has to show up as failures."""
    with pytest.raises(Refused, match="Hostname mismatch"):
        Connection(target(port, "other.fleet.test", certificate)).exchange(REQUEST, 5)


def test_load_checks_and_counts(port: int, certificate: Path) -> None:
    """The check holds in the process that makes the load, too."""
    url = f"https://{NAME}:{port}"
    with Load(url, rate=50, clients=2, address="127.0.0.1", authorities=str(certificate)) as load:
        while load.report().ok < 10:
            pass
    assert load.report().failures() == {}


def test_file_without_certificates_is_explained(tmp_path: Path) -> None:
    """The message comes before any load is made."""
    with pytest.raises(LoadError, match="cannot be read as certificates"):
        find_target(f"https://{NAME}", anywhere=False, address="127.0.0.1", authorities=str(tmp_path / "none"))
