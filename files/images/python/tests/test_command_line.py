"""`_flask_fleet.command_line`: `flask` finds the application that the service names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from _flask_fleet.command_line import into_environment

SHOP = """
from flask import Flask
app = Flask("first")
def make_app(): return Flask("second")
"""


@pytest.mark.parametrize(("app", "found"), [("shop:app", "first"), ("shop:make_app()", "second")])
def test_flask_finds_the_application(tmp_path: Path, app: str, found: str) -> None:
    """Flask finds it without ``FLASK_APP``, as it has to for a migration."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    image = Path(__file__).parents[1]
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(image), "APP": app}
    command = [sys.executable, "-m", "flask", "shell"]
    done = subprocess.run(command, cwd=tmp_path, env=given, input="", capture_output=True, text=True, check=True)
    assert f"App: {found}" in done.stderr + done.stdout


@pytest.mark.parametrize("name", [".env", ".flaskenv"])
def test_project_may_say_another(tmp_path: Path, name: str) -> None:
    """A project may have commands of its own; Flask would not read the name in its file if one were set already."""
    (tmp_path / name).write_text("FLASK_APP=manage\n", encoding="utf-8")
    environment = {"APP": "shop:app"}
    into_environment(environment, tmp_path)
    assert "FLASK_APP" not in environment


def test_what_is_set_stays(tmp_path: Path) -> None:
    """The service's environment, a secret or a Dockerfile may have set it; without a service nothing is set."""
    (tmp_path / ".env").write_text("DEBUG=0\n", encoding="utf-8")
    for environment, expected in (
        ({"APP": "shop:app", "FLASK_APP": "manage"}, "manage"),
        ({"APP": "shop:app"}, "shop:app"),
        ({}, None),
    ):
        into_environment(environment, tmp_path)
        assert environment.get("FLASK_APP") == expected
