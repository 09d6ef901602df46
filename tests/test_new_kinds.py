"""A new application server or a new kind of database needs only a folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.render import machine
from plugins.filter.build_context import hashed_builds
from plugins.lookup.project import images, servers
from roles.image.filter_plugins.image_plan import application_builds, image_plan
from tests.preflight.input import free_port
from tests.project import ACCESSORY, ROOT, SERVICE

COPIED = ("ansible.cfg", "app", "files", "inventories", "playbooks", "plugins", "preflight", "roles")
SERVER = {
    "server.yml": """---
title: Pretender
file: pretender.toml
command: [pretend, --config, "{file}"]
protocol: uwsgi
protocol_port: 9090
refused_environment: {PRETENDER: {pattern: bind, allowed: options other than bind}}
""",
    "pretender.toml.j2": "app = {{ __stack_service.name }}\n"
    "ports = {{ __stack_service.port }}, {{ __stack_server.protocol_port }}\n",
    "image/Dockerfile": "ARG BASE\nFROM ${BASE}\n",
}
KIND = {
    "kind.yml": f"""---
user: {os.getuid()}
data: /var/lib/pretended
least_memory_mib: 40
magic: PRETENDED
suffix: pretended
restarts: true
wrong_password: begone
""",
    "sizing.yml.j2": "---\npids: {{ 10 + memory | int }}\ncommand: [--cache, '{{ memory / 4 }}']\n",
    "Dockerfile": "ARG BASE\nFROM ${BASE}\n",
}
PLAY = """---
- name: Check the input
  ansible.builtin.import_playbook: preflight.yml
- name: Render
  hosts: app
  gather_facts: false
  roles: [accessory, stack]
"""
MACHINE = f"""
from pathlib import Path
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _VALID_ARGS = frozenset({{"directory", "stdin", "verb", "words"}})

    def run(self, tmp=None, task_vars=None):
        for file in self._task.args.get("stdin", []) if self._task.args["verb"] != "secrets" else ():
            path = Path(self._task.args.get("directory", "/"), file["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file["content"])
        return super().run(tmp, task_vars) | {machine()!r}
"""
"""Replaces the action that runs the machine's program: it only keeps the files."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project, and add the folders."""
    copy = tmp_path_factory.mktemp("project")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    for folder, files in {"files/servers/pretender": SERVER, "files/images/pretended": KIND}.items():
        for name, text in files.items():
            (copy / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / folder / name).write_text(text)
    return copy


def rendered(project: Path, folder: Path, **changes: Any) -> "subprocess.CompletedProcess[str]":
    """Run the preflight checks and the roles without a machine, which writes into a folder."""
    (project / "plugins/action/flask_fleet.py").write_text(MACHINE)
    (project / "playbooks/render.yml").write_text(PLAY)
    variables = {
        "accessory_images": {"pretended": "p:1"},
        "accessory_services": [ACCESSORY | {"kind": "pretended", "memory": "64m", "password": "{{ vault_password }}"}],
        "stack_directory": str(folder / "stack"),
        "stack_images": {"app": "a:1", "nginx": "n:1"},
        "stack_port": free_port(),
        "stack_services": [SERVICE | {"server": "pretender"} | changes],
        "vault_password": ACCESSORY["password"],
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/render.yml"]
    command += ["--inventory=inventories/local", f"--extra-vars={json.dumps(variables)}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    environment |= {"ANSIBLE_HOME": str(folder / "ansible")}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=600, cwd=project, env=environment
    )


def test_they_are_rendered(project: Path, tmp_path: Path) -> None:
    """Preflight accepts both, and the specifications of the roles refuse neither."""
    done = rendered(project, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "stack/servers").glob("app-*/pretender.toml")
    assert file.read_text() == "app = app\nports = 5000, 9090\n"
    (release,) = (tmp_path / "stack/releases").iterdir()
    app = yaml.safe_load((release / "compose.yml").read_text())["services"]["app"]
    assert app["command"] == ["pretend", "--config", "/etc/fleet/pretender.toml"]
    assert app["labels"]["flask-fleet.protocol"] == "uwsgi"
    assert file.parent.name in str(app["volumes"])
    conf = (release / "nginx.conf").read_text()
    assert "uwsgi_pass app;" in conf
    assert "uwsgi = true, port = 9090," in conf
    db = yaml.safe_load((tmp_path / "stack-data/compose.yml").read_text())["services"]["db"]
    assert db["command"] == ["--cache", "16.0"]
    assert db["deploy"]["resources"]["limits"]["pids"] == 74
    assert db["image"] == "p:1"
    assert db["user"] == f"{os.getuid()}:{os.getuid()}"
    assert db["volumes"][0] == "db:/var/lib/pretended"
    settings = json.loads((tmp_path / "stack-data/settings.json").read_text())
    assert (settings["restarts"], settings["wrong_password"]) == (["db"], {"db": "begone"})


def test_preflight_knows_their_limits(project: Path, tmp_path: Path) -> None:
    """They are checked like those of every other kind."""
    done = rendered(project, tmp_path, port=9090, environment={"PRETENDER": "bind=1"}, name="pretended")
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    for sentence in (
        "port is 9090, where Pretender speaks its own protocol: allowed is another one for HTTP",
        "environment has PRETENDER with 'bind=1', and nginx would not find the server: allowed are options other",
        "name is 'pretended': allowed are small letters",
    ):
        assert sentence in said


def test_their_images_are_built(project: Path) -> None:
    """The database's is based on the base, the server's on the Python image, and the application's on the server's."""
    chosen = servers(project)
    app = application_builds([{"name": "app", "context": "app"}], {"app": "pretender"}, chosen, "files/flask")
    plan = image_plan(hashed_builds([*images(project), *app], str(project)), "fleet", {}, {})
    parents = {image["name"]: image["parent_reference"].partition(":")[0] for image in plan}
    assert parents["pretended"] == "fleet/base"
    assert parents["pretender"] == "fleet/python"
    assert parents["app"] == "fleet/pretender"


def test_server_that_pip_installs_is_in_the_python_image(project: Path) -> None:
    """Its lock file is there, for the images of applications that do not bring it themselves."""
    (python,) = (image for image in images(project) if image["name"] == "python")
    assert python["others"] == {
        "servers/granian.txt": "files/servers/granian/granian.txt",
        "servers/gunicorn.txt": "files/servers/gunicorn/gunicorn.txt",
    }
