"""Static files: kept for ever under the name of their content, revalidated under any other."""

import re
import shutil
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hello import assets, create_app

FOREVER = {"public", "max-age=31536000", "immutable"}
STATIC = Path(__file__).parent.parent / "hello" / "static"


@pytest.fixture
def built(tmp_path: Path) -> Flask:
    """Make the app as the image has it."""
    app = create_app({"TESTING": True})
    app.static_folder = str(shutil.copytree(STATIC, tmp_path / "static"))
    assets.copy_all(Path(app.static_folder))
    return app


@pytest.fixture
def client(built: Flask) -> FlaskClient:
    """Give a client of it."""
    return built.test_client()


def cache_control(client: FlaskClient, address: str) -> set[str]:
    """Get the cache directives of an answer."""
    return set(client.get(address, buffered=True).headers["Cache-Control"].split(", "))


@pytest.fixture
def style_sheet(client: FlaskClient) -> str:
    """Find the style sheet's address in the page."""
    match = re.search(r"/static/css/site\.[0-9a-f]{12}\.css", client.get("/").text)
    assert match
    return match[0]


def test_what_the_page_links_to_is_kept_for_ever(client: FlaskClient, style_sheet: str) -> None:
    """The address changes with the content, so the answer never has to be asked for again."""
    assert cache_control(client, style_sheet) == FOREVER
    assert client.get(style_sheet, buffered=True).data == (STATIC / "css/site.css").read_bytes()


@pytest.mark.parametrize("version", ["", "?v=000000000000"])
def test_a_plain_name_is_revalidated(client: FlaskClient, version: str) -> None:
    """It says nothing of the content, which is another one after the next deploy."""
    assert cache_control(client, f"/static/css/site.css{version}") == {"no-cache"}


def test_another_content_is_not_here(client: FlaskClient) -> None:
    """During a roll-out an old replica must not answer for a new name with the old content."""
    assert client.get("/static/css/site.000000000000.css").status_code == 404


def test_revalidation_costs_no_body(client: FlaskClient, style_sheet: str) -> None:
    """The ETag of an answer makes the next one empty, and still cacheable."""
    etag = client.get(style_sheet, buffered=True).headers["ETag"]
    response = client.get(style_sheet, buffered=True, headers={"If-None-Match": etag})
    assert (response.status_code, response.data) == (304, b"")
    assert set(response.headers["Cache-Control"].split(", ")) == FOREVER


def test_every_file_has_its_name(built: Flask, client: FlaskClient) -> None:
    """All of them are linked to, each by a name of its own; a second build makes no copies of copies."""
    names = set(re.findall(r"/static/(\S+\.[0-9a-f]{12}\.\w+)", client.get("/").text))
    folder = Path(str(built.static_folder))
    assets.copy_all(folder)
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    plain = {file.relative_to(STATIC).as_posix() for file in STATIC.rglob("*") if file.is_file()}
    assert files - plain == names
    assert len(names) == len(plain)


def test_without_a_build_the_plain_names_serve() -> None:
    """As under `flask run`."""
    app = create_app({"TESTING": True})
    assert 'href="/static/css/site.css"' in app.test_client().get("/").text
