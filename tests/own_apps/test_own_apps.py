"""Other people's Flask apps, as they are on PyPI, deployed as docs/your-app.md says: site.yml and a few lines."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live_playbook import Outcome

pytestmark = pytest.mark.docker

PREFIX = os.environ.get("OWN_APPS_NAME", "own")
"""What the stacks, and so their containers, are called."""

START_S = 120


@dataclass
class Site:
    """The address of a stack, and how its pages are asked for."""

    url: str

    def ask(self, path: str, data: dict[str, str] | None = None, user: str = "") -> tuple[int, str]:
        """Ask for a page; with data as a form, with a user and a password as their owner."""
        headers = {"Authorization": f"Basic {b64encode(user.encode()).decode()}"} if user else {}
        body = urllib.parse.urlencode(data).encode() if data else None
        request = urllib.request.Request(f"{self.url}{path}", body, headers)  # noqa: S310 (made of a port, below)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def ask_httpbin(site: Site) -> None:
    """Ask what it was asked: the scheme and the host are those that nginx saw."""
    status, said = site.ask("/get?answer=42")
    assert status == 200
    assert json.loads(said)["args"] == {"answer": "42"}
    assert json.loads(said)["url"].startswith("http://127.0.0.1")
    assert site.ask("/post", {"name": "value"})[0] == 200
    assert site.ask("/status/418")[0] == 418


def ask_rq_dashboard(site: Site) -> None:
    """Its page and its assets come without the Redis that its numbers would be from."""
    status, said = site.ask("/")
    assert status == 200
    status, said = site.ask("/static/css/main.css")
    assert status == 200
    assert "{" in said
    assert site.ask("/static/css/none.css")[0] == 404


def ask_ihatemoney(site: Site) -> None:
    """Write with one request and read with the next."""
    form = {
        "name": "Holiday",
        "id": "holiday",
        "password": "no-secret",
        "contact_email": "jane@shop.example",
        "default_currency": "XXX",
    }
    assert site.ask("/api/projects", form)[0] == 201
    status, said = site.ask("/api/projects/holiday", user="holiday:no-secret")
    assert status == 200
    assert json.loads(said)["name"] == "Holiday"
    assert site.ask("/static/css/main.css")[0] == 200


@dataclass
class OwnApp:
    """An app: the files of its folder, what its service says, and what it answers."""

    files: dict[str, str]
    service: dict[str, Any]
    check: Callable[[Site], None]
    replicas: int = 2


SETTINGS = """import os

SECRET_KEY = os.environ["SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = os.environ.get("DATABASE_URL", "sqlite:////tmp/ihatemoney.db")
"""

DASHBOARD = """import os

from rq_dashboard import web
from rq_dashboard.cli import make_flask_app

app = make_flask_app(None, None, None, "")
app.config["RQ_DASHBOARD_REDIS_URL"] = os.environ["REDIS_URL"]
web.setup_rq_connection(app)
"""

APPS = {
    "httpbin": OwnApp(
        files={"requirements.txt": "httpbin==0.10.4\n"},
        service={"app": "httpbin:app", "server": "granian"},
        check=ask_httpbin,
    ),
    "rq-dashboard": OwnApp(
        files={"requirements.txt": "rq-dashboard==0.9.0\nsix\n", "wsgi.py": DASHBOARD},
        service={"secrets": {"REDIS_URL": "{{ own_redis }}"}},
        check=ask_rq_dashboard,
    ),
    "ihatemoney": OwnApp(
        files={"requirements.txt": "ihatemoney==7.2.1\n", "ihatemoney.cfg": SETTINGS},
        service={
            "app": "ihatemoney.wsgi:application",
            "server": "uwsgi",
            "environment": {"IHATEMONEY_SETTINGS_FILE_PATH": "/srv/app/ihatemoney.cfg"},
            "secrets": {"SECRET_KEY": "{{ own_key }}"},
        },
        check=ask_ihatemoney,
        # Its database is a file of its own.
        replicas=1,
    ),
}


@contextmanager
def deployed(name: str, app: OwnApp, folder: Path) -> Iterator[Site]:
    """Run site.yml for an app, and remove afterwards what it made."""
    context = folder / name
    context.mkdir()
    for file, text in app.files.items():
        (context / file).write_text(text, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    service = {"name": name, "context": str(context), "path": "/", "replicas": app.replicas, "memory": "192m"}
    variables = {
        "stack_name": f"{PREFIX}-{name}",
        "stack_directory": str(folder / "stack"),
        "stack_port": port,
        "stack_services": [service | app.service],
        "stack_start_seconds": START_S,
        # As from a vault: what stands readable in an inventory is refused.
        "own_key": "0f6c5d1c9be44d1f8f0b",
        "own_redis": "redis://nowhere.invalid",
    }
    arguments = ["--inventory", "inventories/local", "--extra-vars", json.dumps(variables)]
    try:
        done = Outcome(["ansible-playbook", "site.yml", *arguments])
        assert done.ok, done.said
        yield Site(f"http://127.0.0.1:{port}")
    finally:
        down = Outcome(["ansible-playbook", "playbooks/down.yml", *arguments])
    assert down.ok, down.said


@pytest.mark.parametrize("name", APPS)
def test_app_that_knows_nothing_of_this_project_is_served(name: str, tmp_path: Path) -> None:
    """Folder in, address out."""
    with deployed(name, APPS[name], tmp_path) as site:
        APPS[name].check(site)
