"""A stack of the project's nginx and sample app on this machine's engine, and the machine's program without Ansible."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from bench.load import Load
from bench.render import Renderer
from fleet.job import Jobs
from plugins.action.flask_fleet import program
from tests.live_images import make_images
from tests.preflight.input import free_port
from tests.project import ROOT

NAME = "engine-test"
PROJECT = f"com.docker.compose.project={NAME}"
REPLICAS = 2
RATE = 50
"""Requests per second."""
CLIENTS = 4
PATIENCE_S = 600
OFTEN = "HEALTHCHECK --interval=1s --timeout=60s CMD"
"""The engine's first check comes after one interval, which would only make the tests slower."""


def docker(*words: str, stdin: str = "") -> str:
    """Run a docker command that must succeed, and return what it printed."""
    done = subprocess.run(
        ["docker", *words], input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def containers_and_networks() -> tuple[list[str], list[str]]:
    """List what the engine has of the stack, except images."""
    label = ["--quiet", "--filter", f"label={PROJECT}"]
    return docker("ps", "--all", *label).split(), docker("network", "ls", *label).split()


def remove_all() -> None:
    """Remove what there is of the stack, also what a run left that was killed."""
    containers, networks = containers_and_networks()
    images = docker("images", "--quiet", "--filter", f"reference={NAME}/*").split()
    for words, found in (("rm --force", containers), ("network rm", networks), ("rmi --force", images)):
        if found:
            docker(*words.split(), *found)


class Testbed:
    """A stack on this machine's engine."""

    __test__ = False

    def __init__(self, folder: Path, render: Renderer) -> None:
        """Pack the program into a folder, and make the images."""
        self.directory = folder / "stack"
        self.jobs = Jobs(self.directory)
        self._render = render
        self._program = folder / "flask-fleet"
        self._program.write_bytes(program()[1])
        self._base = make_images(folder, ["nginx"], {"app": "app"})
        self._port = free_port()
        self._address = f"http://127.0.0.1:{self._port}"
        self._numbers = count(1)
        self._machine = self.succeed("facts")
        self.nginx = self.image("nginx", f'{OFTEN} ["balancer-status", "--healthy"]')

    def image(self, name: str, *lines: str) -> str:
        """Build a new version of an image with these lines at its end, and return its name."""
        tag = f"{NAME}/{name}:{next(self._numbers)}"
        docker("build", "--quiet", f"--tag={tag}", "-", stdin="\n".join([f"FROM {self._base[name]}", *lines]))
        return tag

    def version(self, *lines: str) -> str:
        """Build a new version of the app, which these lines may break, and return the name of its image."""
        return self.image("app", f"LABEL version={uuid.uuid4()}", f'{OFTEN} ["healthy", "/healthz"]', *lines)

    def command(self, verb: str, *words: str) -> list[str]:
        """Write the command that runs the program."""
        return [sys.executable, str(self._program), verb, "--json", "--directory", str(self.directory), *words]

    def run(self, verb: str, *words: str, stdin: str = "") -> dict[str, Any]:
        """Run the program, and return its answer."""
        command = self.command(verb, *words)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def succeed(self, verb: str, *words: str, stdin: str = "") -> dict[str, Any]:
        """Run the program, which must not fail, and return its answer."""
        answer = self.run(verb, *words, stdin=stdin)
        assert not answer["failed"], f"{answer['msg']}\n{self.jobs.progress().lines}"
        return answer

    def bundle(self, app: str, nginx: str = "", **settings: Any) -> tuple[str, list[dict[str, str]]]:
        """Render the files of a release of these images, and return its id and the files."""
        service = {"name": "app", "context": "app", "replicas": REPLICAS, "memory": "96m", "cpus": "0.5"}
        variables: Mapping[str, Any] = {
            "inventory_hostname": "localhost",
            "stack_address": "127.0.0.1",
            "stack_directory": str(self.directory),
            "stack_images": {"app": app, "nginx": nginx or self.nginx},
            "stack_name": NAME,
            "stack_port": self._port,
            "stack_services": [service | {"static": {"path": "/static/", "folder": "hello/static"}}],
            "stack_drain_seconds": 1,
            "stack_start_seconds": 20,
            "stack_surge": REPLICAS,
            "__stack_machine": self._machine,
            **settings,
        }
        files = self._render.value("stack", "{{ __stack_files }}", __stack_release="ID", **variables)
        said = {one["path"]: one["content"] for one in files}
        text = said["releases/ID/compose.yml"] + said["releases/ID/nginx.conf"]
        release = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]
        return release, [one | {"path": one["path"].replace("/ID/", f"/{release}/")} for one in files]

    def bring(self, app: str, nginx: str = "", **settings: Any) -> str:
        """Bring a release of these images to the machine, and return its id."""
        release, files = self.bundle(app, nginx, **settings)
        self.succeed("bring", release, stdin=json.dumps(files))
        return release

    def deploy(self, app: str, **settings: Any) -> str:
        """Bring and deploy a release of an image, and return its id."""
        release = self.bring(app, **settings)
        self.succeed("deploy", release)
        return release

    def started(self, verb: str, *words: str) -> str:
        """Start a job, and return its id."""
        return str(self.succeed(verb, "--detach", *words)["started"])

    def wait_for_line(self, job: str, words: str) -> int:
        """Wait until a job says some words, and return its process id."""
        known = 0
        while True:
            found = self.jobs.follow(known, PATIENCE_S, job)
            if any(words in line for line in found.lines):
                return found.pid
            assert not found.ended, f"it never said {words!r}: {self.jobs.progress()}"
            known += len(found.lines)

    def replicas(self) -> dict[str, str]:
        """Return the images of the running replicas by their ids."""
        service = "label=com.docker.compose.service=app"
        template = "{{.ID}} {{.Image}}"
        listed = docker("ps", "--filter", f"label={PROJECT}", "--filter", service, "--format", template)
        return dict(line.split() for line in listed.splitlines())

    def image_that_runs(self) -> str:
        """Name the image that all replicas have."""
        (image,) = set(self.replicas().values())
        return image

    def get(self, path: str) -> requests.Response:
        """Ask nginx for a page."""
        return requests.get(f"{self._address}{path}", timeout=10)

    def under_load(self) -> Load:
        """Return a load, half of it POST, and half of it over new connections, which runs during a ``with`` block."""
        methods = {"GET": 0.5, "POST": 0.5}
        return Load(
            self._address, rate=RATE, clients=CLIENTS, reconnecting=CLIENTS // 2, methods=methods, path="/whoami"
        )

    def audit(self) -> list[str]:
        """Read the audit log."""
        return (self.directory / "audit.log").read_text().splitlines()

    def kept(self) -> set[str]:
        """List the releases whose files are there."""
        return {path.parent.name for path in self.directory.glob("releases/*/compose.yml")}


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """Deploy a first release for all tests, and remove everything at the end."""
    with Path(tempfile.gettempdir(), f"flask-fleet-{NAME}.lock").open("w") as lock:
        # Another run on this machine has a stack of the same name.
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_all()
        try:
            made = Testbed(tmp_path_factory.mktemp("engine"), Renderer(ROOT / "roles"))
            made.deploy(made.version())
            yield made
            made.succeed("down")
            assert containers_and_networks() == ([], [])
        finally:
            remove_all()
