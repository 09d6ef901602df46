"""Static files: kept for long under the address of their content, revalidated under any other."""

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

FOREVER = {"public", "max-age=31536000", "immutable"}


def cache_control(client: FlaskClient, address: str) -> set[str]:
    """Get the cache directives of an answer."""
    return set(client.get(address, buffered=True).headers["Cache-Control"].split(", "))


@pytest.fixture
def style_sheet(client: FlaskClient) -> str:
    """Find the style sheet's address in the page."""
    match = re.search(r"/static/css/site\.css\?v=[0-9a-f]{12}", client.get("/").text)
    assert match
    return match[0]


def test_current_version_is_kept_for_long(client: FlaskClient, style_sheet: str) -> None:
    """The address changes with the content, so the answer never has to be asked for again."""
    assert cache_control(client, style_sheet) == FOREVER


@pytest.mark.parametrize("version", ["", "?v=", "?v=000000000000"])
def test_other_versions_are_revalidated(client: FlaskClient, version: str) -> None:
    """During a roll-out an old replica must not fill caches with old content under the new address."""
    assert cache_control(client, f"/static/css/site.css{version}") == {"no-cache"}


def test_revalidation_costs_no_body(client: FlaskClient, style_sheet: str) -> None:
    """The ETag of an answer makes the next one empty, and still cacheable."""
    etag = client.get(style_sheet, buffered=True).headers["ETag"]
    response = client.get(style_sheet, buffered=True, headers={"If-None-Match": etag})
    assert (response.status_code, response.data) == (304, b"")
    assert set(response.headers["Cache-Control"].split(", ")) == FOREVER


def test_version_follows_the_content(client: FlaskClient) -> None:
    """Different files have different versions."""
    versions = re.findall(r"\?v=([0-9a-f]{12})", client.get("/").text)
    files = [path for path in (Path(__file__).parent.parent / "hello" / "static").rglob("*") if path.is_file()]
    assert len(set(versions)) == len(files)
