"""Flask projects in several usual forms are built for real, and each has its package and its dependency."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.live_images import make_images
from tests.project import ROOT

pytestmark = pytest.mark.docker

MODULE = """import itsdangerous


def app(environ, start_response):
    return [itsdangerous.__name__]
"""
SETUPTOOLS = "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
PROJECT = "[project]\nname = 'shop'\nversion = '1'\ndependencies = ['itsdangerous']\n"
POETRY = "[build-system]\nrequires = ['poetry-core']\n[tool.poetry]\npackage-mode = false\n"
IMPORT = "from _flask_fleet.loading import load; load('shop:app')"

FORMS: dict[str, dict[str, bytes]] = {
    "src beside a list": {"requirements.txt": b"itsdangerous\n", "src/shop/__init__.py": MODULE.encode()},
    "editable package in src, listed in UTF-16": {
        "requirements.txt": "-e .  # für alle\r\n".encode("utf-16"),
        "pyproject.toml": (SETUPTOOLS + PROJECT).encode(),
        "src/shop/__init__.py": MODULE.encode(),
    },
    "Poetry without a package": {"pyproject.toml": (POETRY + PROJECT).encode(), "shop.py": MODULE.encode()},
    "list of uv's kind": {"pyproject.toml": PROJECT.encode(), "shop.py": MODULE.encode()},
    "Latin-1": {
        "requirements.txt": "# -*- coding: latin-1 -*-\nitsdangerous  # für alle\n".encode("latin-1"),
        "shop.py": MODULE.encode(),
    },
    "list that leads to others": {
        "requirements.txt": b"-r requirements/prod.txt\n",
        "requirements/prod.txt": b"-r base.txt\n",
        "requirements/base.txt": b"itsdangerous\n",
        "shop.py": MODULE.encode(),
    },
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make sure that the parent of the apps' images exists, and return its name."""
    return make_images(tmp_path_factory.mktemp("parent"), ["python"])["python"]


@pytest.mark.parametrize("files", FORMS.values(), ids=list(FORMS))
def test_form_is_installed(tmp_path: Path, parent: str, files: dict[str, bytes]) -> None:
    """It is built as the role does, for uWSGI, which pip does not have to install."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = ["docker", "build", "--quiet", f"--build-arg=BASE={parent}", "--build-arg=SERVER=uwsgi"]
    if authorities := os.environ.get("PIP_CERT"):
        command.append(f"--secret=id=ca,src={authorities}")
    command += [f"--build-arg={name}" for name in ("https_proxy", "no_proxy") if name in os.environ]
    built = subprocess.run(
        [*command, f"--file={ROOT}/files/flask/Dockerfile", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    image = built.stdout.strip()
    try:
        command = ["docker", "run", "--rm", "--network=none", image, "python3", "-c", IMPORT]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    finally:
        subprocess.run(["docker", "rmi", "--force", image], capture_output=True, check=True)
