"""Other people's Flask apps, as they are on PyPI, deployed as docs/your-app.md says: site.yml and a few lines.

A stack is a file in ``stacks/``, as an inventory would have it; the folders of its services are in ``apps/``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests

from bench.playbook import Outcome
from tests.project import ROOT, load_mapping

STACKS = ROOT / "tests/own_apps/stacks"
PREFIX = os.environ.get("OWN_APPS_NAME", "own")
"""What the names of the stacks, and so of their containers, begin with."""

PATIENCE_S = 1800
"""Each stack needs images of several apps, into which pip installs."""

KEY = secrets.token_hex(24)
"""Passed as from a vault, because preflight refuses a secret that is readable in an inventory."""

UPLOAD_BYTES = 50_000_000
STREAM_S = 30


class Site(requests.Session):
    """An app at its host, and requests of a visitor with cookies."""

    def __init__(self, port: int, host: str) -> None:
        """Begin a session without cookies, at the stack's port on this machine and with the service's host name."""
        super().__init__()
        self.port, self.host = port, host
        self.headers["Host"] = host

    def request(self, method: str | bytes, url: str | bytes, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request for a path."""
        options.setdefault("timeout", 60)
        return super().request(method, f"http://127.0.0.1:{self.port}{url!s}", *arguments, **options)

    def token(self, path: str) -> str:
        """Read a form's token, without which Flask-WTF refuses it."""
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get(path).text)
        assert found, path
        return found[1]


class WebSocket:
    """A client for the part of RFC 6455 that short texts need."""

    def __init__(self, site: Site, path: str) -> None:
        """Shake hands, as a browser does from a page of the same site."""
        self.socket = socket.create_connection(("127.0.0.1", site.port), timeout=30)
        origin = f"http://{site.host}"
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {site.host}\r\nOrigin: {origin}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        lines = list(iter(self.stream.readline, b"\r\n"))
        assert b" 101 " in lines[0], lines

    def close(self) -> None:
        """Close the connection as a browser does that leaves the page."""
        self.stream.close()
        self.socket.close()

    def send(self, text: str) -> None:
        """Send a text of less than 126 bytes, with a mask that changes nothing."""
        self.socket.sendall(bytes((0x81, 0x80 | len(text))) + bytes(4) + text.encode())

    def read(self) -> str:
        """Read a frame of up to 65,535 bytes."""
        _, length = self.stream.read(2)
        length &= 0x7F
        return self.stream.read(int.from_bytes(self.stream.read(2)) if length == 126 else length).decode()

    def read_until(self, wanted: str) -> None:
        """Read frames until one contains a text."""
        while wanted not in self.read():
            pass


def ask_httpbin(site: Site) -> None:
    """Get back what was sent; the scheme and the host in the answer are those that nginx saw."""
    said = site.get("/get?answer=42").json()
    assert said["args"] == {"answer": "42"}
    assert said["url"].startswith("http://127.0.0.1/")
    assert site.post("/post", {"name": "value"}).json()["form"] == {"name": "value"}
    assert site.get("/status/418").status_code == 418


def ask_rq_dashboard(site: Site) -> None:
    """Get its page and its assets, without the Redis from which it would have numbers."""
    assert site.get("/").ok
    assert "{" in site.get("/static/css/main.css").text
    assert site.get("/static/css/none.css").status_code == 404


def ask_ihatemoney(site: Site) -> None:
    """Write with one request and read with the next."""
    form = {
        "name": "Holiday",
        "id": "holiday",
        "password": "no-secret",
        "contact_email": "jane@shop.example",
        "default_currency": "XXX",
    }
    assert site.post("/api/projects", form).status_code == 201
    assert site.get("/api/projects/holiday", auth=("holiday", "no-secret")).json()["name"] == "Holiday"
    assert site.get("/static/css/main.css").ok


def ask_fava(site: Site) -> None:
    """Write into its ledger."""
    source = site.get("/shop/api/source?file_path=/tmp/shop.beancount").json()["data"]
    changed = {"file_path": "/tmp/shop.beancount", "source": source["source"].replace("12.00", "13.50")}  # noqa: S108
    assert site.put("/shop/api/source", json=changed | {"sha256sum": source["sha256sum"]}).ok
    assert "13.50" in site.get("/shop/api/source?file_path=/tmp/shop.beancount").text
    assert site.get("/shop/income_statement/").ok


def ask_klaus(site: Site) -> None:
    """Push a commit of 10 MB with git, and see it on its page."""

    def git(*arguments: str) -> None:
        options = (f"http.extraHeader=Host: {site.host}", "user.name=Jane", "user.email=jane@shop.example")
        subprocess.run(
            ["git", *(word for option in options for word in ("-c", option)), *arguments],
            cwd=folder,
            check=True,
            env=os.environ | {"no_proxy": "127.0.0.1"},
        )

    with TemporaryDirectory() as name:
        folder = Path(name)
        git("init", "--quiet", "--initial-branch=master")
        (folder / "noise").write_bytes(os.urandom(10_000_000))
        git("add", "noise")
        git("commit", "--quiet", "--message=Ten million bytes")
        git("push", "--quiet", f"http://127.0.0.1:{site.port}/shop", "master")
    assert "Ten million bytes" in site.get("/shop/").text


def ask_pygeoapi(site: Site) -> None:
    """Get the two points of its table."""
    said = site.get("/collections/shops/items?f=json").json()
    assert [feature["properties"]["name"] for feature in said["features"]] == ["Mitte", "Altona"]


def ask_mwdb(site: Site) -> None:
    """Log in with the account that its migration made, and get a file's type, which libmagic determines."""
    token = site.post("/api/auth/login", json={"login": "admin", "password": KEY}).json()["token"]
    picture = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0"
    sent = site.post("/api/file", files={"file": ("a.png", picture)}, headers={"Authorization": f"Bearer {token}"})
    assert sent.json()["file_type"].startswith("PNG image data, 1 x 1")


def ask_canaille(site: Site) -> None:
    """Register a client with one request; the next ones are known by its secret, and refused only for their code."""
    shop = {"client_name": "Shop", "redirect_uris": ["https://shop.example/back"]}
    made = site.post("/oauth/register", json=shop | {"grant_types": ["authorization_code"], "response_types": ["code"]})
    assert made.status_code == 201, made.text
    code = {"grant_type": "authorization_code", "code": "none", "redirect_uri": "https://shop.example/back"}
    for _ in range(4):
        said = site.post("/oauth/token", code, auth=(made.json()["client_id"], made.json()["client_secret"]))
        assert said.json()["error"] == "invalid_grant"


def ask_sqlite_web(site: Site) -> None:
    """Make a table by a query, and see it among the others."""
    site.get("/")
    sent = site.post("/query/", {"sql": "CREATE TABLE shop (name text)"})
    assert sent.ok
    assert "shop" in site.get("/").text


def ask_pyxtermjs(site: Site) -> None:
    """Type a command into its terminal, which is a WebSocket of Socket.IO."""
    assert "xterm" in site.get("/").text
    terminal = WebSocket(site, "/socket.io/?EIO=4&transport=websocket")
    terminal.read_until("sid")
    terminal.send("40/pty,")
    terminal.read_until("40/pty")
    terminal.send('42/pty,["pty-input",{"input":"echo $((6*7))0\\n"}]')
    terminal.read_until("420")
    terminal.close()


def ask_flask_sse(site: Site) -> None:
    """Receive for half a minute over a stream what is sent to either replica."""
    stop = threading.Event()

    def send() -> None:
        # From the start: the stream has no headers before its first event.
        while not stop.wait(1):
            assert Site(site.port, site.host).post("/send").text == "Message sent!"

    with ThreadPoolExecutor() as pool:
        sending = pool.submit(send)
        try:
            with site.get("/stream", stream=True) as stream:
                lines = stream.iter_lines(chunk_size=1)
                until = time.monotonic() + STREAM_S
                while time.monotonic() < until:
                    event = [next(lines), next(lines), next(lines)]
                    assert event == [b"event:greeting", b'data:{"message": "Hello!"}', b""]
        finally:
            stop.set()
        sending.result()


def ask_bepasty(site: Site) -> None:
    """Upload 50 MB in one request, and get them back."""
    content = os.urandom(UPLOAD_BYTES)
    sent = site.post("/+upload", files={"file": ("noise.bin", content)}, allow_redirects=False)
    assert sent.status_code == 302
    assert site.get(f"{sent.headers['Location'].partition('#')[0].rstrip('/')}/+download").content == content


def ask_otterwiki(site: Site) -> None:
    """Save a page, which is a commit of its repository, and read it."""
    token = site.token("/shop/edit")
    saved = site.post("/shop/save", {"content": "# Open at nine", "commit": "Hours", "csrf_token": token})
    assert saved.ok
    assert "Open at nine" in site.get("/shop").text
    assert "Hours" in site.get("/-/changelog").text


@contextmanager
def deployed(stack: str, folder: Path) -> Iterator[dict[str, Site]]:
    """Run site.yml for a stack, and remove afterwards what it made."""
    file = STACKS / f"{stack}.yml"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    variables = {
        "stack_name": f"{PREFIX}-{stack}",
        "stack_directory": str(folder / "stack"),
        "stack_port": port,
        "own_key": KEY,
        "own_redis": "redis://nowhere.invalid",
    }
    arguments = ["--inventory", "inventories/local", "-e", f"@{file}", "-e", json.dumps(variables)]
    services = load_mapping(file)["stack_services"]
    try:
        done = Outcome(["ansible-playbook", "site.yml", *arguments], patience=PATIENCE_S)
        assert done.ok, done.said
        yield {one["name"]: Site(port, one.get("host", "127.0.0.1")) for one in services}
    finally:
        down = Outcome(["ansible-playbook", "playbooks/down.yml", *arguments, "-e", "data=delete"])
    assert down.ok, down.said


CHECKS: dict[str, Callable[[Site], None]] = {
    "bepasty": ask_bepasty,
    "canaille": ask_canaille,
    "fava": ask_fava,
    "flask-sse": ask_flask_sse,
    "httpbin": ask_httpbin,
    "ihatemoney": ask_ihatemoney,
    "klaus": ask_klaus,
    "mwdb-core": ask_mwdb,
    "otterwiki": ask_otterwiki,
    "pygeoapi": ask_pygeoapi,
    "pyxtermjs": ask_pyxtermjs,
    "rq-dashboard": ask_rq_dashboard,
    "sqlite-web": ask_sqlite_web,
}
SERVED = [
    (file.stem, one["name"]) for file in sorted(STACKS.glob("*.yml")) for one in load_mapping(file)["stack_services"]
]


@pytest.fixture(scope="module")
def sites(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """Deploy a stack."""
    with deployed(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.mark.docker
@pytest.mark.parametrize(("sites", "name"), SERVED, indirect=["sites"])
def test_app_that_knows_nothing_of_this_project_is_served(sites: dict[str, Site], name: str) -> None:
    """Its folder is all that a deploy needs."""
    CHECKS[name](sites[name])


def test_page_has_a_row_for_each_folder() -> None:
    """The row has the version that the folder pins, and each app is deployed and asked by a test."""
    page = (ROOT / "docs/your-app.md").read_text(encoding="utf-8")
    folders = {folder.name: folder for folder in (ROOT / "tests/own_apps/apps").iterdir()}
    assert folders.keys() == CHECKS.keys() == {name for _, name in SERVED}
    for name, folder in folders.items():
        version = (folder / "requirements.txt").read_text(encoding="utf-8").split()[0].partition("==")[2]
        assert re.search(rf"^\| \[{name}\]\(\S+\) {re.escape(version)}[, ]", page, re.MULTILINE | re.IGNORECASE), name
