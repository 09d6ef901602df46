"""Ansible module: looks at the stack on its machine and does one step of a roll-out there."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: stack_machine
short_description: Look at the stack on its machine, or do one step of a roll-out
options:
  directory:
    description: The stack's folder, with compose.yml.
    type: path
    required: true
  action:
    description:
      - C(look) lists what runs and what should run; C(activate) makes a rendered release the live one; C(start) starts
        further replicas, which nginx sends nothing to yet; C(wait) waits until replicas are healthy and take traffic;
        C(try_nginx) tries a new nginx beside the one that serves; C(stand_in) has a new one serve beside it, so that it
        can be replaced, and C(stand_down) ends that; C(retire) drains and removes one; C(retire_nginx) removes nginx
        after its clients went on over other connections; C(remove) removes one at once; C(prepare) runs a command in a
        container of a release that is not live yet; C(lock) and C(unlock) keep two deploys apart, and C(locked) fails
        while somebody else has the lock; C(begin) makes sure of the lock and notes that a roll-out is under way, C(end)
        that it is over, with a line in the audit log, which C(audit) writes alone; C(settle) notes that a release
        works, and removes like C(prune) what no kept release needs; C(status) tells a person what runs.
    type: str
    required: true
    choices:
      - look
      - activate
      - start
      - wait
      - try_nginx
      - stand_in
      - stand_down
      - retire
      - retire_nginx
      - remove
      - prepare
      - lock
      - locked
      - unlock
      - begin
      - end
      - audit
      - settle
      - prune
      - status
  service:
    description: Name of the service, for C(start) and C(prepare).
    type: str
  count:
    description: How many replicas there shall be in all, for C(start); how many releases to keep, for C(settle),
      C(prune) and C(prepare).
    type: int
  replicas:
    description: Container ids, for C(wait), C(retire), C(retire_nginx) and C(remove).
    type: list
    elements: str
    default: []
  command:
    description: Program and arguments, for C(prepare).
    type: list
    elements: str
    default: []
  seconds:
    description: How long to wait, for C(wait), C(try_nginx), C(stand_in) and C(prepare); after how long a lock is
      stale that another controller took, for C(lock), C(locked) and C(begin).
    type: int
    default: 120
  release:
    description: Id of the release, for C(look), C(activate), C(prepare) and C(settle); with the outcome, for C(end);
      what was done, for C(audit).
    type: str
  controller:
    description: Host name of the controller, for C(lock), C(locked), C(unlock) and C(begin).
    type: str
    default: ""
  pid:
    description: Process on the controller that deploys, for the same.
    type: int
    default: 0
  began:
    description: When that process began, as the controller's kernel counts, for the same; empty where it does not say.
    type: str
    default: ""
  dead:
    description: A holder whose process has ended, for C(lock) and C(begin); its lock is taken over.
    type: dict
    default: {}
  who:
    description: Who deploys and why, for C(lock), C(begin), C(end), C(audit) and C(settle).
    type: str
    default: ""
attributes:
  check_mode:
    support: partial
    details: Only C(look), C(locked), C(unlock) and C(status) do anything then.
"""

EXAMPLES = """
- name: Look
  stack_machine:
    directory: /opt/flask-fleet
    action: look
"""

RETURN = """
services:
  description: For each service its wanted number of replicas, networks, image, static files and containers.
  type: dict
  returned: with action look
static:
  description: For each service with static files the images that are kept.
  type: dict
  returned: with action settle and prune
text:
  description: What runs, or what the command printed, for a person.
  type: str
  returned: with action status or prepare
"""

ACTIONS = [
    *("look", "activate", "start", "wait", "try_nginx", "stand_in", "stand_down", "retire", "retire_nginx", "remove"),
    *("prepare", "lock", "locked", "unlock", "begin", "end", "audit", "settle", "prune", "status"),
]
READING = {"look", "locked", "unlock", "status"}
"""The actions that change nothing; in check mode there is no lock of ours to give back."""
PROCESS = ("controller", "pid", "began")
LOCK = "lock.json"
UNFINISHED = "unfinished"
"""There from the beginning of a roll-out to its end, and after it when it was killed."""
ADMITTED = "nginx/admitted.json"
"""Where balancer.lua reads which addresses may get requests while a roll-out tries a version."""
PORTS = "nginx/ports.json"
"""Where balancer.lua reads the ports that replicas of a service may have: a roll-out may change it."""
PORTS_LABEL = "flask-fleet.ports"
"""Of an nginx that reads it."""
HOLD_S = 30
"""How long nginx goes by it after a roll-out was killed; one that lives renews it at every look."""
CLOSING_S = 60
"""How long nginx, before it ends, asks clients to go on over new connections, if it does not end after all."""
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 (only compared)
MOUNTED = {"secrets": "/run/secrets", "servers": "/etc/fleet"}
"""Folders whose folders are named by their content, and where a replica finds its own of each."""
LOG_LINES = 20
POLL_S = 0.25
COMMAND_TIMEOUT_S = 900
RENDERED = {"compose.yml": "compose.yml", "nginx.conf": "nginx/nginx.conf"}
"""Where the files of a release go when it becomes the live one."""
SERVER_LABEL = "flask-fleet.server"
"""Of a service: its application server."""
STATIC_LABEL = "flask-fleet.static"
"""Of a service with static files: the folder that has them in its image."""


class StepError(Exception):
    """A step failed; the message is for a person."""


def run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a command.

    Args:
        command: Program and arguments.
        cwd: Folder to run in.

    Returns:
        What it printed.

    Raises:
        StepError: It failed; the message has what it printed on stderr.
    """
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
    if done.returncode:
        raise StepError(f"{' '.join(command[:4])} …: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def write(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees half of it, not even after the disk was full.

    Args:
        path: The file.
        text: What it shall say.

    Raises:
        StepError: It was not written; what was there before still is.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_text(text)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        # The error of a full disk does not name the file.
        raise StepError(f"{path} is not written: {error.strerror}") from error


def utc(seconds: float) -> str:
    """Write a time for a person.

    Args:
        seconds: Since 1970.

    Returns:
        Date and time of day in UTC.
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def digest(folder: Path, names: Sequence[str]) -> str:
    """Name a release by its files.

    Args:
        folder: Where the files are.
        names: The files, relative to it.

    Returns:
        The id, or an empty string when a file is missing.
    """
    try:
        content = "".join((folder / name).read_text() for name in names)
    except FileNotFoundError:
        return ""
    return hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()[:12]


class Machine:
    """The stack in one folder of this machine."""

    def __init__(self, directory: Path) -> None:
        """Name the folder.

        Args:
            directory: Folder with compose.yml.
        """
        self.directory = directory

    def compose(self, *arguments: str, file: Path | None = None) -> str:
        """Run docker compose in the folder.

        Args:
            arguments: What comes after ``docker compose``.
            file: Another compose.yml than the live one.

        Returns:
            What it printed.

        Raises:
            StepError: It failed.
        """
        where = ["--project-directory", str(self.directory), "--file", str(file or self.directory / "compose.yml")]
        return run(["docker", "compose", *where, *arguments])

    def config(self, file: Path | None = None) -> dict[str, Any]:
        """Read compose.yml as Compose understands it.

        Args:
            file: Another compose.yml than the live one.

        Returns:
            The project.
        """
        project: dict[str, Any] = json.loads(self.compose("config", "--format", "json", file=file))
        return project

    def inspect(self, replicas: Sequence[str]) -> list[dict[str, Any]]:
        """Inspect containers.

        Args:
            replicas: Their ids; may be empty.

        Returns:
            The engine's answer; those that are gone meanwhile are left out.
        """
        if not replicas:
            return []
        command = ["docker", "inspect", "--type", "container", *replicas]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S)
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return found

    def containers(self, project: str) -> list[dict[str, Any]]:
        """List the project's containers, dead ones too, but not those of ``docker compose run``.

        Args:
            project: Name of the Compose project.

        Returns:
            The engine's answer for each.
        """
        labels = [f"label=com.docker.compose.project={project}", "label=com.docker.compose.oneoff=False"]
        filters = [word for label in labels for word in ("--filter", label)]
        return self.inspect(run(["docker", "ps", "--all", "--quiet", "--no-trunc", *filters]).split())

    def hold(self, project: str, on_trial: Collection[str]) -> None:
        """Have nginx send requests only to the containers that run now and are not on trial.

        Args:
            project: Name of the Compose project.
            on_trial: Ids of the containers that nginx must not send anything to.
        """
        allowed = [one for one in self.containers(project) if one["Id"] not in on_trial]
        listed = sorted(set().union(*map(addresses, allowed)))
        write(self.directory / ADMITTED, json.dumps({"until_time": time.time() + HOLD_S, "addresses": listed}))

    def balancer(self) -> dict[str, Any]:
        """Ask nginx what it knows.

        Returns:
            Its status; empty when nginx does not run.
        """
        try:
            status: dict[str, Any] = json.loads(self.compose("exec", "-T", "nginx", "balancer-status", "--always"))
        except (StepError, ValueError):
            return {}
        return status


def addresses(container: dict[str, Any]) -> set[str]:
    """Collect a container's addresses.

    Args:
        container: As the engine inspects it.

    Returns:
        IP addresses in all its networks; none while it does not run.
    """
    found = {network["IPAddress"] for network in container["NetworkSettings"]["Networks"].values()}
    return found - {""}


def port(container: dict[str, Any]) -> str:
    """Read where a container's server listens; empty for nginx."""
    environment = dict(entry.partition("=")[::2] for entry in container["Config"]["Env"] or ())
    return str(environment.get("PORT", ""))


def summary(container: dict[str, Any], config_hash: str, balancer: dict[str, Any]) -> dict[str, Any]:
    """Say what matters of a container.

    Args:
        container: As the engine inspects it.
        config_hash: What Compose would make of the service now.
        balancer: nginx's status.

    Returns:
        Its id, name, image, networks, port, whether it finds replicas at two ports, application server, whether it is
        fresh, runs and takes traffic, its health, restarts, whether the kernel ended a process in it for want of
        memory, and start time.
    """
    labels, state = container["Config"]["Labels"], container["State"]
    known = balancer.get("services", {}).get(labels["com.docker.compose.service"], {}).get("replicas", {})
    seen = [known[address] for address in addresses(container) if address in known]
    return {
        "id": container["Id"][:12],
        "name": container["Name"].lstrip("/"),
        "image": container["Config"]["Image"],
        "networks": sorted(container["NetworkSettings"]["Networks"]),
        "port": port(container),
        "finds_ports": PORTS_LABEL in labels,
        "server": labels.get(SERVER_LABEL, ""),
        "fresh": labels["com.docker.compose.config-hash"] == config_hash,
        "running": state["Running"] and not state["Restarting"],
        "health": state.get("Health", {}).get("Status", "none"),
        "ready": any(one["ready"] for one in seen),
        "served": sum(one.get("served", 0) for one in seen),
        "restarts": container["RestartCount"],
        "out_of_memory": state["OOMKilled"],
        "since": state["StartedAt"],
    }


def look(machine: Machine, release: str | None) -> dict[str, Any]:
    """Compare what runs with what should.

    Args:
        machine: The stack.
        release: Id of the release that should run; the live one when None.

    Returns:
        The services with their wanted number, networks, image, application server, the folder that nginx serves, and
        containers; the releases that are kept, the running configuration of nginx, whether something stands in for
        nginx, and whether all of it is as it should be.
    """
    live = digest(machine.directory, list(RENDERED.values()))
    folder = machine.directory / "releases" / release if release else machine.directory
    file = folder / "compose.yml"
    if not file.exists():
        raise StepError(f"there is no {file}")
    config = machine.config(file)
    lines = machine.compose("config", "--hash", "*", file=file).splitlines()
    hashes = dict(line.split() for line in lines)
    balancer = machine.balancer() if live else {}
    services: dict[str, Any] = {
        name: {
            "wanted": service.get("deploy", {}).get("replicas", 1),
            "networks": sorted(config["networks"][network]["name"] for network in service["networks"]),
            "image": service["image"],
            "port": service.get("environment", {}).get("PORT", ""),
            "finds_ports": PORTS_LABEL in service.get("labels", {}),
            "server": service.get("labels", {}).get(SERVER_LABEL, ""),
            "static": service.get("labels", {}).get(STATIC_LABEL, ""),
            "replicas": [],
        }
        for name, service in config["services"].items()
    }
    strangers = []
    for container in machine.containers(config["name"]):
        name = container["Config"]["Labels"]["com.docker.compose.service"]
        found = summary(container, hashes.get(name, ""), balancer)
        if name in services:
            services[name]["replicas"].append(found)
        else:
            strangers.append(found["name"])
    nginx_conf = folder / ("nginx.conf" if release else RENDERED["nginx.conf"])
    wanted_sha1 = hashlib.sha1(nginx_conf.read_bytes(), usedforsecurity=False).hexdigest()
    as_wanted = all(
        len(service["replicas"]) == service["wanted"]
        and all(one["fresh"] and one["running"] for one in service["replicas"])
        for service in services.values()
    )
    releases = kept_releases(machine.directory)
    stand_in_is_there = bool(machine.inspect([stand_in_name(config)])) or is_diverted(config)
    # A run that was killed may have left all running, but without the mark, or with what it meant to remove.
    settled = live in {one["id"] for one in releases} and not (machine.directory / UNFINISHED).exists()
    return {
        "live": live,
        "services": services,
        "releases": releases,
        "nginx_current": balancer.get("config_sha1") == wanted_sha1,
        "stand_in": stand_in_is_there,
        "converged": as_wanted
        and settled
        and not (strangers or stand_in_is_there)
        and (release is None or live == release),
    }


def kept_releases(directory: Path) -> list[dict[str, Any]]:
    """List the releases that could be gone back to.

    Args:
        directory: The stack's folder.

    Returns:
        Id, time of the last activation (UTC) and who did it; newest first, never activated ones left out.
    """
    marks = sorted((directory / "releases").glob("*/activated"), key=lambda mark: mark.stat().st_mtime, reverse=True)
    return [
        {
            "id": mark.parent.name,
            "activated": utc(mark.stat().st_mtime),
            "by": mark.read_text().strip(),
        }
        for mark in marks
    ]


def activate(machine: Machine, release: str) -> dict[str, Any]:
    """Make a rendered release the live one; nothing that runs changes by it.

    Args:
        machine: The stack.
        release: Id of the release.

    Returns:
        Ansible's result.
    """
    folder = machine.directory / "releases" / release
    (machine.directory / "nginx").mkdir(exist_ok=True)
    targets = {source: machine.directory / target for source, target in RENDERED.items()}
    for source, target in targets.items():
        shutil.copyfile(folder / source, f"{target}.new")
    # Only now, so that a full disk leaves both files of the release before.
    for target in targets.values():
        Path(f"{target}.new").replace(target)
    return {"changed": True}


def note_ports(machine: Machine, release: str) -> None:
    """Tell nginx where the replicas of each service may listen: those that run, and those of a release to come."""
    config = machine.config(machine.directory / "releases" / release / "compose.yml")
    ports = {name: {service.get("environment", {}).get("PORT")} for name, service in config["services"].items()}
    for container in machine.containers(config["name"]):
        ports.setdefault(container["Config"]["Labels"]["com.docker.compose.service"], set()).add(port(container))
    listed = {name: sorted(int(one) for one in of_one if one) for name, of_one in ports.items()}
    (machine.directory / "nginx").mkdir(exist_ok=True)
    write(machine.directory / PORTS, json.dumps(listed))


def go_live(machine: Machine, release: str) -> dict[str, Any]:
    """Activate a release; nginx knows before where its replicas will listen."""
    note_ports(machine, release)
    return activate(machine, release)


def start(machine: Machine, service: str, count: int) -> dict[str, Any]:
    """Start replicas of the live release beside those that run; nginx sends them nothing before ``wait`` allows it.

    Args:
        machine: The stack.
        service: Name of the service.
        count: How many replicas there shall be in all.

    Returns:
        Ids of the new containers.
    """
    label = f"label=com.docker.compose.service={service}"
    project = machine.config()["name"]
    listing = ["docker", "ps", "-aq", "--filter", label, "--filter", f"label=com.docker.compose.project={project}"]
    before = set(run(listing).split())
    machine.hold(project, ())
    machine.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", f"{service}={count}", service)
    return {"changed": True, "started": sorted(set(run(listing).split()) - before)}


def health_failure(container: dict[str, Any]) -> str:
    """Run a container's own health check now, because the engine may take long to come round to it.

    Args:
        container: As the engine inspects it.

    Returns:
        What is wrong; empty when it is healthy or has no check.
    """
    kind, *test = container["Config"].get("Healthcheck", {}).get("Test") or ["NONE"]
    if kind == "NONE":
        return ""
    command = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
    done = subprocess.run(
        ["docker", "exec", container["Id"], *command], capture_output=True, text=True, check=False, timeout=60
    )
    return (done.stdout + done.stderr).strip() or "the health check fails" if done.returncode else ""


def obstacle(machine: Machine, replica: str, on_trial: set[str]) -> str:
    """Tell why a replica does not take traffic yet.

    Args:
        machine: The stack.
        replica: Container id.
        on_trial: Ids of the containers that nginx must not send anything to; loses this one when it is healthy.

    Returns:
        What is missing; empty when it takes traffic.

    Raises:
        StepError: It never will.
    """
    found = machine.inspect([replica])
    if not found:
        raise StepError("it is gone")
    container = found[0]
    state = container["State"]
    if state["Restarting"] or not state["Running"]:
        raise StepError(f"it ended with status {state['ExitCode']}")
    if container["RestartCount"]:
        raise StepError("it ended, and was started again")
    unhealthy = health_failure(container)
    if unhealthy:
        return f"not healthy: {unhealthy}"
    if container["Id"] in on_trial:
        on_trial.remove(container["Id"])
        machine.hold(container["Config"]["Labels"]["com.docker.compose.project"], on_trial)
    balancer = machine.balancer()
    name = container["Config"]["Labels"]["com.docker.compose.service"]
    known = balancer.get("services", {}).get(name)
    if known is None:
        return ""
    seen = [known["replicas"][address] for address in addresses(container) if address in known["replicas"]]
    if not seen:
        return "nginx has not seen it yet"
    return "" if seen[0]["ready"] else f"not ready: {seen[0].get('why', 'no answer')}"


def last_words(machine: Machine, replica: str) -> str:
    """Collect what helps to find out why a replica failed.

    Args:
        machine: The stack.
        replica: Container id.

    Returns:
        Its last log lines; where it was started again, those before that, because the next start is told at length too.
    """
    again = [one["State"]["StartedAt"] for one in machine.inspect([replica]) if one["RestartCount"]]
    # Docker's --tail counts from the end of the log, whatever --until says.
    part = ["--until", again[0]] if again else ["--tail", str(LOG_LINES)]
    command = ["docker", "logs", *part, replica]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
    return "\n".join(done.stdout.strip().splitlines()[-LOG_LINES:])


def wait(machine: Machine, replicas: Sequence[str], seconds: int) -> dict[str, Any]:
    """Wait until replicas are healthy and take traffic.

    Args:
        machine: The stack.
        replicas: Container ids.
        seconds: How long at most.

    Returns:
        Ansible's result.

    Raises:
        StepError: One never did; the message has the reason and its last log lines.
    """
    deadline = time.monotonic() + seconds
    found = machine.inspect(replicas)
    on_trial = strangers_to_nginx(machine, found)
    for replica in replicas:
        try:
            reason = obstacle(machine, replica, on_trial)
            while reason and time.monotonic() < deadline:
                time.sleep(POLL_S)
                if on_trial:
                    machine.hold(found[0]["Config"]["Labels"]["com.docker.compose.project"], on_trial)
                reason = obstacle(machine, replica, on_trial)
        except StepError as error:
            reason = str(error)
        if reason:
            words = last_words(machine, replica)
            raise StepError(
                f"{replica} did not take traffic within {seconds} s: {reason}\nIts last log lines:\n{words}"
            )
    (machine.directory / ADMITTED).unlink(missing_ok=True)
    return {"changed": False}


def strangers_to_nginx(machine: Machine, containers: Sequence[dict[str, Any]]) -> set[str]:
    """Pick the containers that nginx may not send requests to yet.

    Args:
        machine: The stack.
        containers: As the engine inspects them.

    Returns:
        Their ids; none while nginx may send requests to all.
    """
    note = machine.directory / ADMITTED
    if not note.exists():
        return set()
    known = set(json.loads(note.read_text())["addresses"])
    return {one["Id"] for one in containers if not addresses(one) & known}


def try_nginx(machine: Machine, seconds: int) -> dict[str, Any]:
    """Start nginx of the live release beside the one that serves, published nowhere, and remove it again.

    So a version of it that does not start, or finds no replica, costs nobody an answer.

    Args:
        machine: The stack.
        seconds: How long it may take.

    Returns:
        Ansible's result.

    Raises:
        StepError: It did not become healthy; the message has the reason and its last log lines.
    """
    name = start_beside(machine, machine.config(), seconds)
    run(["docker", "rm", "--force", name])
    return {"changed": False}


def stand_in(machine: Machine, seconds: int) -> dict[str, Any]:
    """Start nginx of the live release beside the one that serves, and lead new connections to it.

    Two containers cannot publish one port, so the kernel is told to send what comes for that port to this one, before
    the engine's own rules are asked. Connections that are open stay where they are.

    Args:
        machine: The stack.
        seconds: How long it may take.

    Returns:
        Ansible's result, and whether it serves: that takes root, nft, and an engine without the userland proxy.

    Raises:
        StepError: It did not become healthy; the message has the reason and its last log lines.
    """
    config = machine.config()
    if not can_divert():
        return {"changed": False, "serves": False}
    ports = config["services"]["nginx"]["ports"]
    # The engine lets packets in only where a port is published; which one does not matter, and nobody is told.
    publish = [word for port in ports for word in ("--publish", f"127.0.0.1::{port['target']}")]
    # The services find it by their names for each other too, where a client that is refused by one asks the next.
    (container,) = machine.inspect([start_beside(machine, config, seconds, "--use-aliases", *publish)])
    address = container["NetworkSettings"]["Networks"][config["networks"]["default"]["name"]]["IPAddress"]
    run(["nft", diversion(stand_in_name(config), ports, address)])
    if not connects(ports[0]):
        # As on an engine with the userland proxy, which leaves the kernel no way from the loopback to a container.
        return stand_down(machine) | {"serves": False}
    return {"changed": True, "serves": True}


def stand_down(machine: Machine) -> dict[str, Any]:
    """Lead new connections to nginx itself again, let the one that stood in finish what it has, and remove it.

    Args:
        machine: The stack.

    Returns:
        Ansible's result.
    """
    config = machine.config()
    name, diverted = stand_in_name(config), is_diverted(config)
    if diverted:
        run(["nft", f"delete table ip {name}"])
    left = machine.inspect([name])
    if left:
        retire_nginx([name])
    return {"changed": diverted or bool(left)}


def connects(port: Mapping[str, Any]) -> bool:
    """Tell whether somebody on this machine gets a connection to a published port.

    Args:
        port: What is published, as Compose understands it.

    Returns:
        Whether it was there within a second.
    """
    host = "127.0.0.1" if port["host_ip"] == EVERY_ADDRESS else port["host_ip"]
    try:
        socket.create_connection((host, int(port["published"])), timeout=1).close()
    except OSError:
        return False
    return True


def stand_in_name(config: Mapping[str, Any]) -> str:
    """Name the container that is tried beside nginx, or stands in for it, and the table of nftables that leads to it.

    Args:
        config: The project, as Compose understands it.

    Returns:
        The name.
    """
    return f"{config['name']}-nginx-stand-in"


def start_beside(machine: Machine, config: Mapping[str, Any], seconds: int, *options: str) -> str:
    """Start another nginx of the live release and wait until it is healthy.

    Args:
        machine: The stack.
        config: The project, as Compose understands it.
        seconds: How long it may take.
        options: Of ``docker compose run``.

    Returns:
        Name of the container.

    Raises:
        StepError: It did not become healthy, and is gone; the message has the reason and its last log lines.
    """
    name = stand_in_name(config)
    # One that an interrupted run left behind.
    run(["docker", "rm", "--force", name])
    try:
        machine.compose("run", "--detach", "--no-deps", "--name", name, *options, "nginx")
        wait(machine, [name], seconds)
    except StepError:
        run(["docker", "rm", "--force", name])
        raise
    return name


def can_divert() -> bool:
    """Tell whether this process may change where the kernel sends connections.

    Returns:
        Whether it is root's, and nft is there.
    """
    return os.geteuid() == 0 and shutil.which("nft") is not None


def is_diverted(config: Mapping[str, Any]) -> bool:
    """Tell whether connections are led to the one that stands in.

    Args:
        config: The project, as Compose understands it.

    Returns:
        Whether the table is there, also when the container is not.
    """
    asked = ["nft", "list", "table", "ip", stand_in_name(config)]
    return can_divert() and not subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode


def diversion(table: str, ports: Sequence[Mapping[str, Any]], address: str) -> str:
    """Write the rules that lead new connections for published ports elsewhere.

    Args:
        table: Name of a table that may be there already.
        ports: What is published, as Compose understands it.
        address: Of the container that shall get the connections.

    Returns:
        One transaction for nft.
    """
    lines = [f"add table ip {table}", f"delete table ip {table}", f"add table ip {table}"]
    for chain in ("prerouting", "output"):
        # Before the engine's rules, at -100, because the first that matches counts; after those of the firewall, at
        # -110, which have to see the port that was asked for.
        lines.append(f"add chain ip {table} {chain} {{ type nat hook {chain} priority -105; }}")
        for port in ports:
            asked = "" if port["host_ip"] == EVERY_ADDRESS else f"ip daddr {port['host_ip']} "
            led = f"tcp dport {port['published']} dnat to {address}:{port['target']}"
            lines.append(f"add rule ip {table} {chain} fib daddr type local {asked}{led}")
    return "\n".join(lines)


def retire_nginx(containers: Sequence[str]) -> dict[str, Any]:
    """Have the clients of nginx go on over new connections, which are led elsewhere by now, and remove it.

    Args:
        containers: Their ids or names.

    Returns:
        Ansible's result.
    """
    for container in containers:
        # An nginx of an older release cannot do this.
        command = ["docker", "exec", container, "let-go", str(CLOSING_S)]
        subprocess.run(command, capture_output=True, check=False, timeout=COMMAND_TIMEOUT_S)
    return retire(containers, gently=True)


def retire(replicas: Sequence[str], *, gently: bool) -> dict[str, Any]:
    """Take replicas out of service and remove them.

    Args:
        replicas: Container ids.
        gently: Whether they may drain first, as long as their own stop time says.

    Returns:
        Ansible's result.
    """
    if gently:
        run(["docker", "stop", *replicas])
    run(["docker", "rm", "--force", *replicas])
    return {"changed": True}


def prepare(machine: Machine, params: dict[str, Any]) -> dict[str, Any]:
    """Run a command in a container of a release that is not live yet, with all that a replica of it would have.

    Args:
        machine: The stack.
        params: ``release``, ``service``, ``command``, how many ``seconds`` it may take, and the ``count`` of releases
            that are kept.

    Returns:
        Ansible's result, with what it printed.

    Raises:
        StepError: It failed or took too long; the message has its last lines. Its container is gone in any case.
    """
    release, service, command, seconds = (params[key] for key in ("release", "service", "command", "seconds"))
    file = machine.directory / "releases" / release / "compose.yml"
    name = f"{machine.config(file)['name']}-{service}-pre-deploy"
    # One that a run which was killed left behind.
    run(["docker", "rm", "--force", name])
    where = ["--project-directory", str(machine.directory), "--file", str(file)]
    once = ["run", "--rm", "--no-deps", "--no-TTY", "--name", name, service, *command]
    what = f"pre_deploy of {service} ({' '.join(command)})"
    try:
        done = subprocess.run(
            # Without what Compose says of its own work, which would be among the command's lines.
            ["docker", "compose", "--progress", "quiet", *where, *once],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=seconds,
        )
        printed, outcome = done.stdout, f"ended with status {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        printed, outcome = late.stdout or b"", f"did not end within {seconds} s"
    finally:
        run(["docker", "rm", "--force", name])
    lines = printed.decode(errors="replace").strip().splitlines()
    if outcome:
        last = "\n".join(lines[-LOG_LINES:])
        if digest(machine.directory, list(RENDERED.values())) in {
            one["id"] for one in kept_releases(machine.directory)
        }:
            # As after a release that does not work; where a run was killed, what serves may be none that is kept.
            prune(machine, params["count"])
        raise StepError(f"{what} {outcome}. Nothing was replaced: what served serves on.\nIts last lines:\n{last}")
    return {"changed": True, "text": "\n".join([f"{what}:", *lines])}


def locked(machine: Machine, ours: dict[str, Any], seconds: int, dead: dict[str, Any]) -> dict[str, Any]:
    """Tell whether somebody else deploys.

    Args:
        machine: The stack.
        ours: Who asks, and the controller and process that do it.
        seconds: Age from which a lock of another controller counts as left behind; on the same one, the process counts.
        dead: A holder whose process has ended.

    Returns:
        Ansible's result; failed, with the holder, when somebody does; it names a lock that was left behind.
    """
    note, roll_out = machine.directory / LOCK, machine.directory / UNFINISHED
    try:
        holder, since = json.loads(note.read_text()), note.stat().st_mtime
    except FileNotFoundError:
        return {"changed": False}
    if is_same(holder, ours):
        return {"changed": False, "ours": True}
    is_near = holder["controller"] == ours["controller"]
    # Building may take long, so the time counts anew when the roll-out begins.
    left = max(since, roll_out.stat().st_mtime if roll_out.exists() else 0) + seconds - time.time()
    when = f"{utc(since)} UTC"
    if holder == dead or (left <= 0 and not is_near):
        return {"changed": False, "left_behind": f"{holder['who']} left behind at {when}"}
    until = f"its process {holder['pid']} lives" if is_near else f"the lock expires in {left:.0f} s"
    text = f"{holder['who']}, from {holder['controller']}, has been deploying here since {when}; {until}"
    return {"failed": True, "msg": text, "holder": holder}


def is_same(holder: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Tell whether a lock is our own.

    Args:
        holder: What the lock says.
        ours: The controller and process that ask.

    Returns:
        Whether it is.
    """
    return all(holder.get(key) == ours[key] for key in PROCESS)


@contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Let one process at a time look at the lock and write it, so that of many who come at once one sees the others'.

    Args:
        directory: The stack's folder.

    Yields:
        Nothing.
    """
    with (directory / f"{LOCK}.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def lock(machine: Machine, ours: dict[str, Any], seconds: int, dead: dict[str, Any]) -> dict[str, Any]:
    """Keep a second deploy out; who has the lock already keeps it.

    Args:
        machine: The stack.
        ours: Who deploys, and the controller and process that do it.
        seconds: As for ``locked``.
        dead: As for ``locked``.

    Returns:
        Ansible's result, with a warning when a stale lock was taken over; failed, with the holder, when somebody else
        deploys.
    """
    if not machine.directory.exists():
        # Two may come at once also before the first deploy.
        machine.directory.mkdir(parents=True, exist_ok=True)
        machine.directory.chmod(0o755)
    with guarded(machine.directory):
        other = locked(machine, ours, seconds, dead)
        if not (other.get("failed") or other.get("ours")):
            write(machine.directory / LOCK, json.dumps(ours))
    left_behind = other.get("left_behind")
    return other | {"warnings": [f"took over the lock that {left_behind}"] if left_behind else []}


def unlock(machine: Machine, ours: dict[str, Any]) -> dict[str, Any]:
    """Let the next deploy in, unless the lock is somebody else's.

    Args:
        machine: The stack.
        ours: The controller and process that deployed.

    Returns:
        Ansible's result.
    """
    note = machine.directory / LOCK
    if note.exists():
        with guarded(machine.directory):
            if note.exists() and is_same(json.loads(note.read_text()), ours):
                note.unlink()
    return {"changed": False}


def begin(machine: Machine, ours: dict[str, Any], seconds: int, dead: dict[str, Any]) -> dict[str, Any]:
    """Note that a roll-out is under way, unless the lock was taken over meanwhile.

    Args:
        machine: The stack.
        ours: As for ``lock``.
        seconds: As for ``lock``.
        dead: As for ``lock``.

    Returns:
        Ansible's result, as of ``lock``.
    """
    answer = lock(machine, ours, seconds, dead)
    if answer.get("failed"):
        return answer
    (machine.directory / UNFINISHED).touch()
    return answer | {"changed": True}


def audit(machine: Machine, what: str, who: str) -> dict[str, Any]:
    """Write a line into the audit log.

    Args:
        machine: The stack.
        what: What was done, such as the id of a release with the outcome.
        who: Who did it and why.

    Returns:
        Ansible's result.
    """
    with (machine.directory / "audit.log").open("a") as log:
        log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {what} by {who}\n")
    return {"changed": True}


def end(machine: Machine, what: str, who: str) -> dict[str, Any]:
    """Note a roll-out, and that it is over.

    Args:
        machine: The stack.
        what: As for ``audit``.
        who: As for ``audit``.

    Returns:
        Ansible's result.
    """
    (machine.directory / ADMITTED).unlink(missing_ok=True)
    noted = audit(machine, what, who)
    (machine.directory / UNFINISHED).unlink(missing_ok=True)
    return noted


def services_of(machine: Machine, release: str) -> dict[str, dict[str, Any]]:
    """List what a release runs.

    Args:
        machine: The stack.
        release: Id of the release.

    Returns:
        The services by name, as Compose understands them.
    """
    file = machine.directory / "releases" / release / "compose.yml"
    services: dict[str, dict[str, Any]] = machine.config(file)["services"]
    return services


def forget_mounted(directory: Path, services: Iterable[Mapping[str, Any]]) -> None:
    """Remove the secrets, and the configurations of servers, that no release needs any more.

    Args:
        directory: The stack's folder.
        services: What the kept releases run, as Compose understands it.
    """
    mounts = [mount for service in services for mount in service.get("volumes", [])]
    for folder, target in MOUNTED.items():
        needed = {Path(mount["source"]).name for mount in mounts if mount["target"] == target}
        for path in (directory / folder).glob("*"):
            if path.name not in needed:
                shutil.rmtree(path)


def settle(machine: Machine, release: str, who: str, count: int) -> dict[str, Any]:
    """Note that a release works; remove what no kept one needs.

    Args:
        machine: The stack.
        release: Id of the release that works.
        who: Who deployed it.
        count: How many releases to keep.

    Returns:
        Ansible's result, and for each service with static files the images that are kept.
    """
    write(machine.directory / "releases" / release / "activated", f"{who}\n")
    return prune(machine, count)


def prune(machine: Machine, count: int) -> dict[str, Any]:
    """Remove what no kept release needs: those that are old or never worked, what was mounted, images and networks.

    Args:
        machine: The stack.
        count: How many releases to keep, of those that worked.

    Returns:
        Ansible's result, and for each service with static files the images that are kept.
    """
    kept = [release["id"] for release in kept_releases(machine.directory)][:count]
    named = [one for release in kept for one in services_of(machine, release).items()]
    services = [service for _, service in named]
    images = {service["image"] for service in services}
    for path in (machine.directory / "releases").iterdir():
        if path.name not in kept:
            shutil.rmtree(path)
    forget_mounted(machine.directory, services)
    repositories = {image.rpartition(":")[0] for image in images}
    listed = run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split()
    old = [image for image in listed if image.rpartition(":")[0] in repositories and image not in images]
    if old:
        # An image that a stopped container still needs stays; that is no reason to fail.
        subprocess.run(["docker", "rmi", *old], capture_output=True, check=False, timeout=COMMAND_TIMEOUT_S)
    project = machine.config()["name"]
    run(["docker", "network", "prune", "--force", "--filter", f"label=com.docker.compose.project={project}"])
    static: dict[str, list[str]] = {}
    for name, service in named:
        if STATIC_LABEL in service.get("labels", {}):
            static.setdefault(name, []).append(service["image"])
    return {"changed": True, "static": static}


def usage() -> dict[str, list[str]]:
    """Ask the engine what its containers use.

    Returns:
        CPU, and memory of its limit, of each, by name.
    """
    listed = run(["docker", "stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}}"])
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return {name: [cpu, memory.replace(" / ", " of ")] for name, cpu, memory in rows}


def status(machine: Machine) -> dict[str, Any]:
    """Tell a person what runs.

    Args:
        machine: The stack.

    Returns:
        The text: the release, who deploys now, then a line for each container.
    """
    state, used = look(machine, None), usage()
    live = next((one for one in state["releases"] if one["id"] == state["live"]), {"activated": "?", "by": "?"})
    rows = [("replica", "health", "ready", "restarts", "CPU", "memory", "requests", "share", "id")]
    for name, service in sorted(state["services"].items()):
        total = sum(one["served"] for one in service["replicas"])
        for one in sorted(service["replicas"], key=lambda replica: str(replica["name"])):
            is_replica = name != "nginx"
            share = f"{one['served'] / total:.1%}" if total else "-"
            balanced = ("yes" if one["ready"] else "NO", str(one["restarts"]))
            traffic = (str(one["served"]), share) if is_replica else ("-", "-")
            cpu, memory = used.get(one["name"], ["-", "-"])
            # The engine goes on calling it healthy: a server that has several processes starts the ended one anew.
            memory += ", RAN OUT" if one["out_of_memory"] else ""
            ready, restarts = balanced if is_replica else ("-", balanced[1])
            rows.append((one["name"], one["health"], ready, restarts, cpu, memory, *traffic, one["id"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = [f"release {state['live']}, live since {live['activated']} UTC, by {live['by']}"]
    note = machine.directory / LOCK
    if note.exists():
        head.append(f"{json.loads(note.read_text())['who']} is deploying, since {utc(note.stat().st_mtime)} UTC")
    return {"changed": False, "text": "\n".join([*head, "", *lines])}


def step(machine: Machine, params: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked for.

    Args:
        machine: The stack.
        params: The module's parameters.

    Returns:
        Ansible's result.
    """
    ours = {key: params[key] for key in ("who", *PROCESS)}
    held = (machine, ours, params["seconds"], params["dead"])
    actions: dict[str, Callable[[], dict[str, Any]]] = {
        "look": lambda: {"changed": False} | look(machine, params["release"]),
        "activate": lambda: go_live(machine, params["release"]),
        "start": lambda: start(machine, params["service"], params["count"]),
        "wait": lambda: wait(machine, params["replicas"], params["seconds"]),
        "try_nginx": lambda: try_nginx(machine, params["seconds"]),
        "stand_in": lambda: stand_in(machine, params["seconds"]),
        "stand_down": lambda: stand_down(machine),
        "retire": lambda: retire(params["replicas"], gently=True),
        "retire_nginx": lambda: retire_nginx(params["replicas"]),
        "remove": lambda: retire(params["replicas"], gently=False),
        "prepare": lambda: prepare(machine, params),
        "lock": lambda: lock(*held),
        "locked": lambda: locked(*held),
        "unlock": lambda: unlock(machine, ours),
        "begin": lambda: begin(*held),
        "end": lambda: end(machine, params["release"], params["who"]),
        "audit": lambda: audit(machine, params["release"], params["who"]),
        "settle": lambda: settle(machine, params["release"], params["who"], params["count"]),
        "prune": lambda: prune(machine, params["count"]),
        "status": lambda: status(machine),
    }
    return actions[params["action"]]()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "required": True, "choices": ACTIONS},
            "directory": {"type": "path", "required": True},
            "service": {"type": "str"},
            "command": {"type": "list", "elements": "str", "default": []},
            "count": {"type": "int"},
            "replicas": {"type": "list", "elements": "str", "default": []},
            "seconds": {"type": "int", "default": 120},
            "release": {"type": "str"},
            "who": {"type": "str", "default": ""},
            "controller": {"type": "str", "default": ""},
            "pid": {"type": "int", "default": 0},
            "began": {"type": "str", "default": ""},
            "dead": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    if module.check_mode and module.params["action"] not in READING:
        module.exit_json(changed=True)
    # nginx and the replicas read some of the files, as other users than the operator's.
    os.umask(0o022)
    try:
        result = step(Machine(Path(module.params["directory"])), module.params)
    except (StepError, OSError, subprocess.TimeoutExpired) as error:
        result = {"failed": True, "msg": str(error)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
