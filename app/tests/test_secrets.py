"""The secret key: where it comes from, and what the app does with it."""

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from hello import create_app, settings_from_environment

KEY = "a key that both replicas have"
OTHER_KEY = "a key that nobody else has"


def replica(**config: object) -> FlaskClient:
    """Make a client of one more replica of the app."""
    return create_app({"TESTING": True} | config).test_client(use_cookies=False)


def test_key_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file there is none; the line break that an editor leaves is not part of it."""
    monkeypatch.setenv("SECRETS_FOLDER", str(tmp_path))
    assert settings_from_environment()["SECRET_KEY"] is None
    (tmp_path / "secret_key").write_text(f"{KEY}\n", encoding="utf-8")
    assert settings_from_environment()["SECRET_KEY"] == KEY


def test_visits_are_counted_by_whichever_replica_answers() -> None:
    """A session that only one replica can read would be lost with every other request."""
    one, other = replica(SECRET_KEY=KEY), replica(SECRET_KEY=KEY)
    cookie = one.get("/").headers["Set-Cookie"]
    answer = other.get("/", headers={"Cookie": cookie.partition(";")[0]})
    assert '<dd id="visits">2</dd>' in answer.text


def test_session_that_another_key_signed_is_not_believed() -> None:
    """Whoever could sign his own could be anybody; and a changed key ends the sessions of the old one."""
    cookie = replica(SECRET_KEY=OTHER_KEY).get("/").headers["Set-Cookie"]
    answer = replica(SECRET_KEY=KEY).get("/", headers={"Cookie": cookie.partition(";")[0]})
    assert '<dd id="visits">1</dd>' in answer.text


def test_without_a_key_there_is_no_session(app: Flask) -> None:
    """The app works as it did before it had secrets."""
    answer = app.test_client().get("/")
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert "visits" not in answer.text


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_cookie_got_by_https_stays_in_https(scheme: str, secure: bool) -> None:
    """Plain HTTP would show it to everybody on the way; scripts never see it."""
    cookie = replica(SECRET_KEY=KEY).get("/", base_url=f"{scheme}://localhost").headers["Set-Cookie"]
    assert ("Secure" in cookie) is secure
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
