"""Docker Compose as the engine of a stack."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from fleet.engine import docker
from fleet.engine.base import NGINX, Answer, Plan, Port, Replica, Service, State
from fleet.engine.docker import HASH_LABEL, PROJECT_LABEL, SERVICE_LABEL
from fleet.release import COMPOSE_FILE, FRESH_S, Releases
from fleet.system import LOG_LINES, FleetError, attempt, last_lines, run

ONE_OFF_LABEL = "com.docker.compose.oneoff"
PORTS_LABEL = "flask-fleet.ports"
"""Of an nginx that reads which ports the replicas of a service may have."""
PROTOCOL_LABEL = "flask-fleet.protocol"
"""Of a service: what nginx speaks to it."""
SERVER_LABEL = "flask-fleet.server"
"""Of a service of earlier releases, which said the application server instead."""
STATIC_LABEL = "flask-fleet.static"
"""Of a service with static files: the folder that has them in its image."""
COPY_LABEL = "flask-fleet.static-copy"
"""Of a container that only lends its files; its value is the folder of the stack that they are for."""
CHECK_TIMEOUT_S = 60
RUN_ONCE = ("docker", "run", "--rm", "--pull", "never", "--network", "none")
"""A registry that has an image of the same name is not asked."""
NGINX_FOLDER = "/etc/nginx/stack"
"""Where nginx finds its configuration."""
TLS = "/etc/nginx/certificate"
"""Where it finds the certificate, without which it refuses a configuration that names one."""


class Compose:
    """The Compose project of a stack."""

    def __init__(self, releases: Releases) -> None:
        """Say where the stack is."""
        self._releases = releases
        self._configs: dict[str, dict[str, Any]] = {}
        self._hashes: dict[str, dict[str, str]] = {}

    def plan(self, release: str | None) -> dict[str, Plan]:
        """Read what a release says of each service; None is the live one."""
        config = self._config(release)
        return {name: _plan(service, config["networks"]) for name, service in config["services"].items()}

    def compare(self, release: str | None) -> State:
        """Compare what runs with a release; None is the live one."""
        plans, hashes = self.plan(release), self._config_hashes(release)
        found: dict[str, list[Replica]] = {name: [] for name in plans}
        orphans = []
        for container in docker.inspect(self._ids(self._name(release))):
            replica = _replica(container)
            if replica.service in found:
                is_fresh = container["Config"]["Labels"][HASH_LABEL] == hashes.get(replica.service)
                found[replica.service].append(changed(replica, fresh=is_fresh))
            else:
                orphans.append(replica)
        services = {name: Service(plan, tuple(found[name])) for name, plan in plans.items()}
        return State(services, tuple(orphans))

    def check(self, compose_file: Path, nginx_conf: Path) -> None:
        """Have the real programs read what a release says, before it can become live."""
        config = _config(docker.compose(self._releases.directory, compose_file))
        nginx = config["services"][NGINX]
        mounts = [f"{one['source']}:{one['target']}:ro" for one in nginx["volumes"] if one["target"].startswith(TLS)]
        volumes = [
            word for one in (f"{nginx_conf}:{NGINX_FOLDER}/nginx.conf:ro", *mounts) for word in ("--volume", one)
        ]
        confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108 (in it)
        check = ["nginx", "-t", "-q", "-c", f"{NGINX_FOLDER}/nginx.conf"]
        done = attempt([*RUN_ONCE, *confined, *volumes, nginx["image"], *check])
        if done.returncode:
            raise FleetError(f"nginx refuses nginx.conf: {done.stderr.strip()}")

    def replicas(self, ids: Sequence[str] | None = None) -> list[Replica]:
        """Inspect containers, or all of the stack; those that are gone meanwhile are left out."""
        return [_replica(one) for one in docker.inspect(self._ids(self._name(None)) if ids is None else ids)]

    def start(self, service: str, count: int) -> list[str]:
        """Start replicas of the live release until there are so many; give the ids of the new ones."""
        project = self._name(None)
        before = set(self._ids(project, service))
        self._compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", f"{service}={count}", service)
        return sorted(one[:12] for one in set(self._ids(project, service)) - before)

    def bring_up(self, services: Sequence[str] = (), *, replace: bool, seconds: int) -> None:
        """Start what is missing of the live release, and wait until it is healthy."""
        options = ["--detach", "--pull", "never", "--wait", "--wait-timeout", str(seconds)]
        if not replace:
            options.append("--no-recreate")
        if not services:
            options.append("--remove-orphans")
        elif replace:
            options.append("--no-deps")
        else:
            # Otherwise Compose starts replicas that nobody has tried, or stops some that serve.
            options += self._numbers_that_run(services)
        self._compose("up", *options, *services)

    def scale(self, numbers: Mapping[str, int], seconds: int) -> None:
        """Start or stop replicas until there are so many of each, and wait until they are healthy."""
        wait = ["--wait", "--wait-timeout", str(seconds)]
        self._compose("up", "--detach", "--no-recreate", "--pull", "never", *wait, *_scales(numbers))

    def stop(self, ids: Sequence[str]) -> None:
        """Have containers finish what they have, as long as their own stop time says, and remove them."""
        docker.stop(ids)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove containers at once, if they are there."""
        docker.remove(ids)

    def health_failure(self, container: str) -> str:
        """Run a container's own health check now, because the engine may take long to come round to it."""
        found = docker.inspect([container])
        kind, *test = (found[0]["Config"].get("Healthcheck", {}).get("Test") if found else None) or ["NONE"]
        if kind == "NONE":
            return ""
        command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        done = attempt(["docker", "exec", container, *command], timeout=CHECK_TIMEOUT_S)
        return (done.stdout + done.stderr).strip() or "the health check fails" if done.returncode else ""

    def log_tail(self, container: str) -> str:
        """Give the last log lines; of a container that was started again, those before that.

        The next start is told at length too.
        """
        again = [one["State"]["StartedAt"] for one in docker.inspect([container]) if one["RestartCount"]]
        # Docker's --tail counts from the end of the log, whatever --until says.
        part = ["--until", again[0]] if again else ["--tail", str(LOG_LINES)]
        return last_lines(docker.log(container, *part))

    def execute(self, container: str, command: Sequence[str]) -> Answer:
        """Run a command in a container, or in the oldest one of a service that runs."""
        # Not by Compose, which takes twice as long to find it, and a roll-out asks nginx at every step.
        if container in self.plan(None):
            running = [one for one in self.replicas() if one.service == container and one.running]
            if not running:
                return Answer(1, f"{container} does not run")
            container = min(running, key=lambda one: one.since).id
        done = attempt(["docker", "exec", container, *command], stderr=subprocess.STDOUT)
        return Answer(done.returncode, done.stdout)

    def run_once(self, release: str, service: str, command: Sequence[str], seconds: int) -> Answer:
        """Run a command in a container of its own, with all that a replica of a release would have."""
        name = f"{self._name(release)}-{service}-pre-deploy"
        # One that a run which was killed left behind.
        self.remove([name])
        # Without what Compose says of its own work, which would be among the command's lines.
        compose = self._command(release, "--progress", "quiet")
        once = ["run", "--rm", "--no-deps", "--no-TTY", "--name", name, service, *command]
        try:
            done = attempt([*compose, *once], stderr=subprocess.STDOUT, timeout=seconds)
        finally:
            self.remove([name])
        return Answer(done.returncode, done.stdout)

    def standby(self) -> str:
        """Name the container that is tried beside nginx or stands in for it."""
        return f"{self._name(None)}-nginx-standby"

    def start_standby(self, *, reachable: bool) -> None:
        """Start that container, an nginx of the live release that is published nowhere."""
        name = self.standby()
        # One that an interrupted run left behind.
        self.remove([name])
        # The engine lets packets in only where a port is published; which one does not matter, and nobody is told.
        publish = [word for port in self.published() for word in ("--publish", f"127.0.0.1::{port.target}")]
        # The services find it by their names for each other too, where a client that is refused by one asks the next.
        options = ["--use-aliases", *publish] if reachable else []
        self._compose("run", "--detach", "--no-deps", "--name", name, *options, NGINX)

    def address_of(self, container: str) -> str:
        """Give the address at which the machine reaches a container."""
        (found,) = docker.inspect([container])
        network = self._config(None)["networks"]["default"]["name"]
        return str(found["NetworkSettings"]["Networks"][network]["IPAddress"])

    def published(self) -> list[Port]:
        """List what nginx of the live release publishes."""
        ports = self._config(None)["services"][NGINX].get("ports", [])
        return [Port(str(one["host_ip"]), str(one["published"]), str(one["target"])) for one in ports]

    def prune(self, keep: Collection[str], removed: Collection[str]) -> None:
        """Remove images that no release needs any more, and networks that nothing uses."""
        repositories = {image.rpartition(":")[0] for image in keep}
        unused = [image for image in docker.images() if image not in keep]
        # Others of the same services may have been built for a release that is about to be rendered.
        others = [one for one in unused if one.rpartition(":")[0] in repositories and one not in removed]
        old = [one for one in unused if one in removed] + _tagged_long_ago(others)
        if old:
            # An image that a stopped container still needs stays; that is no reason to fail.
            attempt(["docker", "rmi", *old])
        ours = f"label={PROJECT_LABEL}={self._name(None)}"
        run(["docker", "network", "prune", "--force", "--filter", ours])

    @contextmanager
    def folder_of(self, image: str, folder: str) -> Iterator[IO[bytes]]:
        """Open a folder of an image, relative to its working directory, as a tar archive."""
        self._remove_copies()
        # It is never started. A registry that has an image of the same name is not asked.
        options = ["--pull", "never", "--network", "none", "--label", self._copy_mark]
        container = run(["docker", "create", *options, image, "true"]).strip()
        try:
            working = run(["docker", "inspect", "--format", "{{.Config.WorkingDir}}", container]).strip()
            with _copied(f"{container}:{PurePosixPath(working or '/', folder)}") as archive:
                yield archive
        finally:
            self.remove([container])

    def facts(self) -> Mapping[str, Any]:
        """Say what the engine is, in its own words."""
        found: dict[str, Any] = json.loads(run(["docker", "info", "--format", "{{json .}}"]))
        return found

    def openssl(self, image: str) -> str:
        """Give the version of OpenSSL that the nginx of an image was built with."""
        asked = [*RUN_ONCE, image, "nginx", "-V"]
        found = re.search(r"OpenSSL ([0-9.]+)", attempt(asked, stderr=subprocess.STDOUT).stdout)
        if found is None:
            raise FleetError(f"nginx of {image} does not say which OpenSSL it was built with")
        return found[1]

    def usage(self) -> dict[str, tuple[str, str]]:
        """Give CPU, and memory of its limit, of each container by its name."""
        listed = run(["docker", "stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}}"])
        rows = [line.split(maxsplit=2) for line in listed.splitlines()]
        return {name: (cpu, memory.replace(" / ", " of ")) for name, cpu, memory in rows}

    def logs(self, replicas: Sequence[Replica], lines: int) -> str:
        """Give the last lines of the logs of these, each line with its time and the name of who wrote it."""
        options = ["--timestamps", "--tail", str(lines)]
        return "\n".join(
            f"{one.name}  | {line}" for one in replicas for line in docker.log(one.id, *options).splitlines()
        )

    def down(self) -> None:
        """Remove the containers and networks of the stack."""
        self._compose("down", "--remove-orphans")
        self._remove_copies()

    @property
    def _copy_mark(self) -> str:
        return f"{COPY_LABEL}={self._releases.directory}"

    def _remove_copies(self) -> None:
        """Remove the containers that lent their files to a run which was killed."""
        self.remove(run(["docker", "ps", "--all", "--quiet", "--filter", f"label={self._copy_mark}"]).split())

    def _file(self, release: str | None) -> Path:
        file = self._releases.folder(release) / COMPOSE_FILE
        if not file.exists():
            raise FleetError(f"there is no {file}")
        return file

    def _command(self, release: str | None, *options: str) -> list[str]:
        return docker.compose(self._releases.directory, self._file(release), *options)

    def _compose(self, *arguments: str) -> str:
        return run([*self._command(None), *arguments])

    def _config(self, release: str | None) -> dict[str, Any]:
        """Read compose.yml as Compose understands it, once as long as it says the same."""
        key = hashlib.sha256(self._file(release).read_bytes()).hexdigest()
        if key not in self._configs:
            self._configs[key] = _config(self._command(release))
        return self._configs[key]

    def _config_hashes(self, release: str | None) -> dict[str, str]:
        """Read what Compose would label the containers of each service with, once as long as it says the same."""
        key = hashlib.sha256(self._file(release).read_bytes()).hexdigest()
        if key not in self._hashes:
            self._hashes[key] = docker.config_hashes(self._command(release))
        return self._hashes[key]

    def _name(self, release: str | None) -> str:
        return str(self._config(release)["name"])

    def _ids(self, project: str, service: str = "") -> list[str]:
        """List containers of a project, dead ones too, but not those of ``docker compose run``."""
        labels = {PROJECT_LABEL: project, ONE_OFF_LABEL: "False"} | ({SERVICE_LABEL: service} if service else {})
        return docker.containers(labels)

    def _numbers_that_run(self, left_out: Collection[str]) -> list[str]:
        """Write as options how many there are of each service of which there is any."""
        project = self._name(None)
        numbers = {name: len(self._ids(project, name)) for name in self.plan(None) if name not in left_out}
        return _scales({name: number for name, number in numbers.items() if number})


def _config(command: Sequence[str]) -> dict[str, Any]:
    """Have Compose read a file; give it as Compose understands it."""
    config: dict[str, Any] = json.loads(run([*command, "config", "--format", "json"]))
    return config


def _tagged_long_ago(images: Sequence[str]) -> list[str]:
    if not images:
        return []
    template = "{{.Metadata.LastTagTime.Unix}} {{.Created}}"
    lines = run(["docker", "image", "inspect", "--format", template, *images]).splitlines()
    return [image for image, line in zip(images, lines, strict=True) if _tag_time(line) < time.time() - FRESH_S]


def _tag_time(line: str) -> float:
    """Read when an image got its name, in seconds since 1970."""
    tagged, created = line.split()
    # The engine of Debian 12 does not note it of an image that was just built.
    return max(float(tagged), datetime.fromisoformat(created).timestamp())


@contextmanager
def _copied(source: str) -> Iterator[IO[bytes]]:
    """Stream what docker copies out of a container."""
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(["docker", "cp", source, "-"], stdout=subprocess.PIPE, stderr=said) as copying,
    ):
        try:
            yield cast("IO[bytes]", copying.stdout)
        except BaseException as error:
            # Where docker failed by itself, its words are the reason.
            with suppress(subprocess.TimeoutExpired):
                copying.wait(1)
            copying.kill()
            said.seek(0)
            reason = said.read().decode(errors="replace").strip()
            if reason and isinstance(error, FleetError):
                raise FleetError(reason) from error
            raise


def _protocol(labels: Mapping[str, str]) -> str:
    """Read what nginx speaks to a service; nothing to nginx itself."""
    if server := labels.get(SERVER_LABEL):
        return "uwsgi" if server == "uwsgi" else "http"
    return labels.get(PROTOCOL_LABEL, "")


def _scales(numbers: Mapping[str, int]) -> list[str]:
    return [word for name, count in numbers.items() for word in ("--scale", f"{name}={count}")]


def _plan(service: Mapping[str, Any], networks: Mapping[str, Any]) -> Plan:
    labels = service.get("labels", {})
    return Plan(
        count=service.get("deploy", {}).get("replicas", 1),
        image=service["image"],
        networks=frozenset(networks[network]["name"] for network in service.get("networks", {})),
        port=service.get("environment", {}).get("PORT", ""),
        protocol=_protocol(labels),
        finds_ports=PORTS_LABEL in labels,
        static=labels.get(STATIC_LABEL, ""),
        mounted={mount["target"]: mount["source"] for mount in service.get("volumes", [])},
    )


def _replica(container: Mapping[str, Any]) -> Replica:
    config, state = container["Config"], container["State"]
    labels, networks = config["Labels"] or {}, container["NetworkSettings"]["Networks"]
    environment = dict(entry.partition("=")[::2] for entry in config["Env"] or ())
    return Replica(
        id=container["Id"][:12],
        name=container["Name"].lstrip("/"),
        service=labels.get(SERVICE_LABEL, ""),
        networks=frozenset(networks),
        addresses=frozenset(network["IPAddress"] for network in networks.values()) - {""},
        port=environment.get("PORT", ""),
        protocol=_protocol(labels),
        finds_ports=PORTS_LABEL in labels,
        running=state["Running"] and not state["Restarting"],
        health=state.get("Health", {}).get("Status", "none"),
        restarts=container["RestartCount"],
        exit_code=state["ExitCode"],
        out_of_memory=state["OOMKilled"],
        since=state["StartedAt"],
    )
