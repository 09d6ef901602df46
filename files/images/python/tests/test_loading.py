"""`_flask_fleet.loading`: the application that a service names, or one clear line."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from _flask_fleet.loading import NAMED, AppError, load, load_or_explain
from preflight.services import APP

FILES = {
    "shop.py": """
def app(environ, start): return [b"app"]
def create_app(): return app
class Holder: wsgi = staticmethod(app)
name = "shop"
""",
    "parts/__init__.py": "",
    "parts/web.py": "def app(environ, start): return [b'web']\n",
    "src/store/__init__.py": "def app(environ, start): return [b'store']\n",
    "needs.py": "import no_such_dependency\n",
    "ends.py": "raise SystemExit('no database')\n",
    "breaks.py": "1 / 0\n",
    "logging.py": "app = None\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the folder of an app and go there; afterwards its modules are forgotten."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("shop:app", b"app"),
        ("shop:create_app()", b"app"),
        ("shop:Holder.wsgi", b"app"),
        ("parts.web:app", b"web"),
        ("store:app", b"store"),
    ],
)
def test_application_is_found(target: str, says: bytes) -> None:
    """It may be an object, a function's result or an attribute, in a module, a package or a package in src."""
    assert load(target)({}, print) == [says]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop", "allowed is module:object, such as wsgi:app or shop:create_app()"),
        ("shop:app:app", "allowed is module:object"),
        ("shop:create_app('x')", "allowed is module:object"),
        ("", "allowed is module:object"),
        ("shpo:app", "there is no module shpo in {folder}, nor is it installed"),
        ("parts.wbe:app", "there is no module parts.wbe in {folder}, nor is it installed"),
        ("shop:application", "there is no application in the module shop ({folder}/shop.py)"),
        ("shop:name", "that is no WSGI application, but str"),
        ("logging:app", f"Python has another module logging already ({logging.__file__}); rename yours"),
        ("ends:app", "its module ended the process: no database"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder: Path, target: str, said: str) -> None:
    """The sentence names the variable, its value, and what was looked for where."""
    with pytest.raises(AppError) as error:
        load(target)
    assert str(error.value).startswith(f"app is {target!r}: {said.format(folder=folder)}")


@pytest.mark.parametrize(
    ("target", "expected"), [("needs:app", ModuleNotFoundError), ("breaks:app", ZeroDivisionError)]
)
def test_apps_own_mistakes_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, target: str, expected: type[Exception]
) -> None:
    """A missing dependency must not look as if the app's module were missing."""
    monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)
    with pytest.raises(expected):
        load_or_explain(target)
    assert sys.tracebacklimit == 1000


def test_sentence_comes_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """All servers print the exception."""
    monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)
    with pytest.raises(AppError):
        load_or_explain("shpo:app")
    assert sys.tracebacklimit == 0


def test_preflight_reads_names_in_the_same_way() -> None:
    """A name that one of the two allows and the other refuses would be found out in the middle of a deploy."""
    assert NAMED.pattern == APP.pattern
