"""Every route: what it answers, and that no cache may keep it."""

import os
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient

REPLICA = {"container": "0123456789ab", "release": "r42", "server": "unknown", "pid": os.getpid()}


class TagCollector(HTMLParser):
    """Collects the start tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        """Parse a page."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember one tag."""
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", ["/", "/whoami", "/healthz", "/readyz", "/nowhere"])
def test_answers_about_this_replica_are_not_stored(client: FlaskClient, path: str) -> None:
    """A cached answer would hide the balancing and lie about health."""
    assert client.get(path).headers["Cache-Control"] == "no-store"


def test_page_shows_the_replica(client: FlaskClient) -> None:
    """The page greets and shows the container that made it, without JavaScript."""
    response = client.get("/")
    assert response.status_code == 200
    assert response.mimetype == "text/html"
    assert "Hello" in response.text
    assert '<code id="container-id">0123456789ab</code>' in response.text
    assert "r42" in response.text


def test_page_escapes_what_it_shows(client: FlaskClient) -> None:
    """A release is free text: it must not become HTML."""
    client.application.config["RELEASE"] = "<script>"
    assert "&lt;script&gt;" in client.get("/").text


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_pages_work_under_a_strict_content_security_policy(client: FlaskClient, path: str) -> None:
    """`default-src 'self'` forbids inline scripts and styles, event attributes and foreign addresses."""
    for tag, attributes in TagCollector(client.get(path).text).tags:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for address in (attributes.get("src"), attributes.get("href")):
            assert address is None or address.startswith(("/", "#"))
            assert not (address or "").startswith("//")


def test_every_linked_file_exists(client: FlaskClient) -> None:
    """A typing error in a template would only be noticed by looking at the page."""
    for _, attributes in TagCollector(client.get("/").text).tags:
        for address in (attributes.get("src"), attributes.get("href")):
            if address and address.startswith("/"):
                assert client.get(address, buffered=True).status_code == 200, address


def test_healthz_says_ok(client: FlaskClient) -> None:
    """Liveness is answered by the process alone."""
    response = client.get("/healthz")
    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


def test_readyz_says_ready(client: FlaskClient) -> None:
    """Whether a stop was announced is not the app's to know."""
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()) == (200, {"ready": True})


def test_whoami_describes_the_replica(client: FlaskClient) -> None:
    """Container, release, server and worker process."""
    response = client.get("/whoami")
    assert response.status_code == 200
    assert response.get_json() == REPLICA


@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 100_000])
def test_whoami_counts_the_bytes_of_a_post(client: FlaskClient, body: bytes) -> None:
    """Load tests prove with it that the body arrived whole."""
    response = client.post("/whoami", data=body)
    assert response.get_json() == REPLICA | {"body_bytes": len(body)}
    assert response.headers["Cache-Control"] == "no-store"


def test_too_large_a_body_is_refused(client: FlaskClient) -> None:
    """Bodies are read into memory, so their size is limited."""
    assert client.post("/whoami", data=b"x" * (1024 * 1024 + 1)).status_code == 413


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SERVER_SOFTWARE": "gunicorn/27.0.1"}, "gunicorn/27.0.1"),
        ({"uwsgi.version": b"2.0.31"}, "uwsgi/2.0.31"),
        ({"uwsgi.version": "2.0.31"}, "uwsgi/2.0.31"),
    ],
)
def test_server_is_named(client: FlaskClient, environ: dict[str, object], expected: str) -> None:
    """Each server names itself in its own way."""
    assert client.get("/whoami", environ_overrides=environ).get_json()["server"] == expected


def test_unknown_address_gets_a_small_page(client: FlaskClient) -> None:
    """The 404 page leads back to the start."""
    response = client.get("/nowhere")
    assert (response.status_code, response.mimetype) == (404, "text/html")
    assert 'href="/"' in response.text


def test_missing_static_file_is_not_found(client: FlaskClient) -> None:
    """A missing file gets the same page, not an error of the cache headers."""
    response = client.get("/static/css/missing.css")
    assert (response.status_code, response.headers["Cache-Control"]) == (404, "no-store")
