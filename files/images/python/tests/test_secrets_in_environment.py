"""`_flask_fleet.secrets`: those named in capitals become environment variables, in every Python of a container."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from _flask_fleet.secrets import into_environment

FILES = {
    "DATABASE_URL": "postgresql://db\n",
    "KEY_2": "a\nb\n",
    "secret_key": "hidden",
    "Mixed": "hidden",
    "2FA": "hidden",
}
EXPECTED = {"DATABASE_URL": "postgresql://db", "KEY_2": "a\nb"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the folder that a container gets."""
    for name, value in FILES.items():
        (tmp_path / name).write_text(value, encoding="utf-8")
    (tmp_path / "FOLDER").mkdir()
    return tmp_path


def test_names_in_capitals_are_read(folder: Path) -> None:
    """Apps that know of the others read them from their files."""
    environment = {"SECRETS_FOLDER": str(folder), "KEY_2": "replaced"}
    into_environment(environment)
    assert environment == {"SECRETS_FOLDER": str(folder)} | EXPECTED


def test_no_folder_is_no_mistake(tmp_path: Path) -> None:
    """A service without secrets has none."""
    environment = {"SECRETS_FOLDER": str(tmp_path / "nowhere")}
    into_environment(environment)
    assert environment.keys() == {"SECRETS_FOLDER"}


def test_any_python_has_them(folder: Path) -> None:
    """A migration is started by another program than the server."""
    image = Path(__file__).parents[1]
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(image), "SECRETS_FOLDER": str(folder)}
    command = [sys.executable, "-c", "import os; print(os.environ['DATABASE_URL'])"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout == "postgresql://db\n"
