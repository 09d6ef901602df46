"""An engine and an nginx in memory, with a clock of their own, which note what a client of the stack would notice.

Containers take time to start, compose files are JSON, and every step can be made to fail. What Compose does beside
what it is asked for is copied as well: it starts nginx's services with nginx, and waits for all that it looked at.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any

import pytest

from fleet import proxy, rollout
from fleet.deploy import deploy
from fleet.engine.base import NGINX, Answer, Plan, Port, Replica, Service, State
from fleet.job import Job, Progress
from fleet.release import MARK
from fleet.stack import SETTINGS, Stack
from fleet.system import CancelledError, FleetError

BOOT_S = 1.0
"""How long an nginx needs until it knows its replicas."""
HEALTHY_S = 0.5
READY_S = 0.75
"""Later than healthy, so that a roll-out that waits only for healthy loses requests."""
DRAIN_S = 0.25
STANDBY = "fleet-nginx-standby"
NOTHING_BEFORE = Progress()
KILLED = Progress(id="before", what="deploy", who="joe")
"""A job that ended without a word."""

Fault = tuple[int, BaseException]
"""The number of a step, and the error that happens there."""

Config = Mapping[str, Any]
Release = Mapping[str, Config]
"""What a compose file says of each service."""


class KilledError(BaseException):
    """The process was killed: it does nothing after this, whatever catches the error."""


class Clock:
    """A replacement of the module ``time``, in which time passes only when somebody sleeps."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._now = 1000.0

    def time(self) -> float:
        return self._now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self._look()


@dataclass
class Container:
    id: str
    name: str
    service: str
    said: Config
    address: str
    started: float
    running: bool = True
    hangs_until: float = 0.0
    """When its own health check ends it, so that the engine starts it again."""
    drains: bool = False
    """It was told to stop."""
    has_served: bool = False
    """For nginx: whether clients have connections to it."""
    drains_clients: bool = False
    conf: str = ""
    """For nginx: the configuration that it runs with."""


@dataclass
class Seen:
    fewest: int
    """Replicas that requests were sent to, at the worst moment."""
    most: int
    """Containers, at the fullest moment."""


def release(version: str, **app: Any) -> dict[str, Config]:
    """Write the settings of a release: those of the service ``app``, and with the prefix ``nginx_`` those of nginx."""
    given = {"image": f"fleet/app:{version}", "count": 3, "network": "inside", "port": "5000", "protocol": "http"}
    of_nginx = {name.removeprefix("nginx_"): value for name, value in app.items() if name.startswith("nginx_")}
    of_app = {name: value for name, value in app.items() if not name.startswith("nginx_")}
    nginx = {"image": "fleet/nginx:1", "count": 1, "finds_ports": True}
    return {"app": given | {"fault": ""} | of_app, NGINX: nginx | {"fault": "", "conf": "1"} | of_nginx}


class FakeEngine:
    """The engine of one stack, its nginx, and the kernel between that and its clients."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock(self.look)
        self.containers: dict[str, Container] = {}
        self.images: set[str] = set()
        self.unreadable: set[str] = set()
        """Images whose static files cannot be brought."""
        self.answers: dict[str, Answer | FleetError] = {}
        """How the commands before a release end, by service; without one they succeed."""
        self.can_divert = True
        self.keeps_loopback = True
        """Whether connections of the machine itself can be diverted."""
        self.diverted = ""
        """The address to which connections are led instead of nginx."""
        self.story: list[str] = []
        """What was done, for a person who looks for the reason of a failure."""
        self.wrongs: list[str] = []
        """Observations that must never be made."""
        self.seen: dict[str, Seen] = {}
        self.at_first: dict[str, Seen] = {}
        self.steps: list[str] = []
        self.fault: Fault | None = None
        self._directory = directory
        self._numbers = iter(range(1, 10_000))
        self._is_dead = False
        self._ill: set[str] = set()
        """Ids of containers that got requests before and are not healthy."""
        self._files: dict[str, dict[str, Any]] = {}
        """Files that were read since one last changed, because each look reads the same ones."""

    # What a test does and asks.

    def watch(self, fault: Fault | None = None) -> None:
        """Begin to observe the stack, and to count the steps."""
        self._is_dead = False
        self.fault, self.steps, self.story, self.wrongs = fault, [], [], []
        self.seen = {name: Seen(self.serving(name), len(self.of(name))) for name in ("app", NGINX)}
        self._ill = {one.id for one in self._answering("app") if one.said["fault"] == "unhealthy"}
        self.at_first = {name: replace(seen) for name, seen in self.seen.items()}

    def step(self, what: str, *, may_fail: bool = True) -> None:
        """Record a step, and fail at it if the test wants that; a failure after a step is one before the next."""
        if self._is_dead:
            raise KilledError
        self.steps.append(what)
        self.story.append(f"{len(self.steps)}: {what}")
        self.look()
        at, error = self.fault or (0, KilledError())
        if len(self.steps) == at and (may_fail or not isinstance(error, FleetError)):
            self._is_dead = isinstance(error, KilledError)
            self.story.append(f"{type(error).__name__}")
            raise error

    def look(self) -> None:
        """Observe what a client would notice."""
        front = self._front()
        if front:
            front.has_served = True
        for name, seen in self.seen.items():
            seen.most = max(seen.most, len(self.of(name)))
            if not self.can_divert and not self.serving(NGINX):
                # For about a second nobody answers, which the roll-out says.
                continue
            serving = self.serving(name)
            if serving < seen.fewest:
                seen.fewest = serving
                self.story.append(f"   {serving} serve of {name}")
        for one in self._answering("app"):
            if one.said["fault"] == "unhealthy" and one.id not in self._ill and self.at_first["app"].fewest:
                self._wrong(f"{one.id} gets requests and is not healthy")
            if not self._has_static(one):
                self._wrong(f"the static files of {one.id} are not there")

    def file_changed(self) -> None:
        self._files.clear()
        self.look()

    def serving(self, service: str) -> int:
        """Count the replicas that a client's request may come to; for nginx, whether one answers."""
        if service == NGINX:
            front = self._front()
            return int(front is not None and self._has_booted(front))
        return len(self._answering(service))

    def of(self, service: str) -> list[Container]:
        return [one for one in self.containers.values() if one.service == service and one.name != STANDBY]

    def settle(self) -> None:
        """Let all that was started become ready, and let any hold expire."""
        self.clock.sleep(proxy.GATE_S + 1)

    # What the roll-out asks of an engine.

    def plan(self, release: str | None) -> dict[str, Plan]:
        return {name: _plan(name, one) for name, one in self._said(release).items()}

    def compare(self, release: str | None) -> State:
        """Compare what runs with a release."""
        self.step("compare")
        said = self._said(release)
        found = {name: [self._replica(one, said[name]) for one in self.of(name)] for name in said}
        orphans = [self._replica(one, {}) for one in self.containers.values() if one.service not in said]
        plans = self.plan(release)
        return State({name: Service(plans[name], tuple(found[name])) for name in said}, tuple(orphans))

    def replicas(self, ids: Sequence[str] | None = None) -> list[Replica]:
        chosen = [one for one in self.containers.values() if one.name != STANDBY] if ids is None else self._chosen(ids)
        return [self._replica(one, one.said) for one in chosen]

    def start(self, service: str, count: int) -> list[str]:
        before = set(self.containers)
        self._converge(service, {**self._said(None)[service], "count": count}, replace=False)
        return sorted(set(self.containers) - before)

    def bring_up(self, services: Sequence[str] = (), *, replace: bool, seconds: int) -> None:
        """Start what is missing of the live release, and wait until it is healthy."""
        said = self._said(None)
        # With nginx it starts what that depends on, too.
        chosen = list(services) if services and replace else list(said)
        if not services:
            self.stop([one.id for one in self.containers.values() if one.service not in said])
        for name in sorted(chosen, key=lambda name: name == NGINX):
            stays = bool(services) and name not in services and len(self.of(name))
            self._converge(name, {**said[name], "count": stays or said[name]["count"]}, replace=replace)
        self._wait_until_healthy(chosen, seconds)

    def scale(self, numbers: Mapping[str, int], seconds: int) -> None:
        said = self._said(None)
        for name, one in said.items():
            self._converge(name, {**one, "count": numbers.get(name, one["count"])}, replace=False)
        self._wait_until_healthy(list(said), seconds)

    def stop(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        self.step(f"stop {ids}")
        for one in self._chosen(ids):
            if one.has_served and self.can_divert and not one.drains_clients:
                self._wrong(f"{one.id} closes kept connections")
            one.drains = True
        self.clock.sleep(DRAIN_S)
        for one in self._chosen(ids):
            one.running = False
        self.look()
        self.remove(ids)

    def remove(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        self.step(f"remove {ids}")
        front = self._front()
        for one in self._chosen(ids):
            if one.running and (one is front or one in self._answering(one.service)):
                self._wrong(f"{one.id} is removed while it has requests")
            del self.containers[one.id]
        self.look()

    def health_failure(self, container: str) -> str:
        return "" if all(self._is_healthy(one) for one in self._chosen([container])) else "the health check fails"

    def log_tail(self, container: str) -> str:
        return f"last log lines of {container}"

    def execute(self, container: str, command: Sequence[str]) -> Answer:
        """Run a command in a container, or in the first one of a service."""
        found = [one for one in self._chosen([container]) or self.of(container) if one.running]
        if not found:
            return Answer(1, "it does not run")
        if command[0] == "balancer-status":
            return Answer(0, json.dumps(self._balancer_status(found[0])))
        self.step(" ".join([*command, container]))
        if command[0] == "drain-clients":
            found[0].drains_clients = True
            self.clock.sleep(2)
        elif _is_broken(text := self._conf()):
            return Answer(1, "unknown directive")
        else:
            found[0].conf = text
        self.look()
        return Answer(0, "")

    def run_once(self, release: str, service: str, command: Sequence[str], seconds: int) -> Answer:
        self.step(f"{' '.join(command)} in {service} of {release} for {seconds} s")
        answer = self.answers.get(service, Answer(0, "done\n"))
        if isinstance(answer, FleetError):
            raise answer
        return answer

    def standby(self) -> str:
        return STANDBY

    def start_standby(self, *, reachable: bool) -> None:
        self.remove([one.id for one in self._chosen([STANDBY])])
        self.step(f"start standby, reachable: {reachable}")
        self._create(NGINX, self._said(None)[NGINX], STANDBY)
        self.look()

    def address_of(self, container: str) -> str:
        return self._chosen([container])[0].address

    def published(self) -> list[Port]:
        return [Port(proxy.EVERY_ADDRESS, "80", "80")]

    def prune(self, keep: Collection[str], removed: Collection[str]) -> None:
        self.step(f"prune {sorted(removed)}")
        self.images -= set(removed) - set(keep)

    @contextmanager
    def folder_of(self, image: str, folder: str) -> Iterator[IO[bytes]]:
        """Open a folder of an image as a tar archive with a file that every release has, and one of its own."""
        self.step(f"static files of {image}")
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name in ("logo.txt", f"{image.rpartition(':')[2]}.txt"):
                    member = tarfile.TarInfo(f"{folder}/{name}")
                    member.size = len(image)
                    if name != "logo.txt" and image in self.unreadable:
                        member.type = tarfile.SYMTYPE
                    archive.addfile(member, io.BytesIO(image.encode()))
            file.seek(0)
            yield file

    def check(self, compose_file: Path, nginx_conf: Path) -> None:
        """Accept all files, because only the real programs can check them."""

    def facts(self) -> Mapping[str, Any]:
        return {}

    def openssl(self, image: str) -> str:
        del image
        return ""

    def usage(self) -> dict[str, tuple[str, str]]:
        return {}

    def logs(self, replicas: Sequence[Replica], lines: int) -> str:
        del replicas, lines
        return ""

    def down(self) -> None:
        self.containers.clear()

    # What the proxy asks of the machine.

    def nft(self, command: Sequence[str]) -> str:
        rules = command[1]
        self.step(rules.splitlines()[-1])
        led = re.search(r"dnat to ([\d.]+):", rules)
        self.diverted = led[1] if led else ""
        self.look()
        return ""

    def ask_nft(self, command: Sequence[str]) -> CompletedProcess[str]:
        return CompletedProcess(command, int(not self.diverted), "", "")

    def connects(self, port: Port) -> bool:
        del port
        return self.keeps_loopback and self._front() is not None

    # How containers behave.

    def _said(self, release: str | None) -> Release:
        folder = self._directory / "releases" / release if release else self._directory
        try:
            return _parsed((folder / "compose.yml").read_text())
        except FileNotFoundError as error:
            raise FleetError(f"there is no {folder}/compose.yml") from error

    def _conf(self) -> str:
        return (self._directory / "nginx/nginx.conf").read_text()

    def _chosen(self, ids: Sequence[str]) -> list[Container]:
        return [one for one in self.containers.values() if one.id in ids or one.name in ids]

    def _create(self, service: str, said: Config, name: str) -> None:
        if said["image"] not in self.images:
            raise FleetError(f"there is no image {said['image']}")
        number = next(self._numbers)
        taken = {one.address for one in self.containers.values()}
        # The lowest that is free: a new replica gets the address of one that was removed.
        address = next(one for one in (f"10.0.0.{last}" for last in range(2, 250)) if one not in taken)
        one = Container(f"c{number}", name or f"fleet-{service}-{number}", service, said, address, self.clock.time())
        self.containers[one.id] = one
        self._boot(one)

    def _boot(self, one: Container) -> None:
        one.started, one.drains = self.clock.time(), False
        one.conf = self._conf() if one.service == NGINX else ""
        one.running = one.said["fault"] != "dies" and not _is_broken(one.conf)

    def _converge(self, service: str, said: Config, *, replace: bool) -> None:
        """Do what Compose does with one service: remove surplus replicas, old ones first, and start missing ones."""
        stale = [one for one in self.of(service) if replace and _digest(one.said) != _digest(said)]
        running = sorted(self.of(service), key=stale.__contains__)
        kept, left_over = running[: said["count"]], running[said["count"] :]
        self.stop([one.id for one in running if one in left_over or one in stale])
        for one in kept:
            if one not in stale and not one.running:
                self.step(f"start {one.id} again")
                self._boot(one)
        for _ in range(said["count"] - len(self.of(service))):
            self.step(f"start {service}")
            self._create(service, said, "")
            self.look()

    def _wait_until_healthy(self, services: Collection[str], seconds: int) -> None:
        self.step(f"wait for {', '.join(services)}")
        deadline = self.clock.time() + seconds
        waiting = [one for name in services for one in self.of(name)]
        while ill := [one for one in waiting if not self._is_healthy(one)]:
            if not ill[0].running or self.clock.time() > deadline:
                raise FleetError(f"container {ill[0].name} is unhealthy")
            self.clock.sleep(0.5)

    def _has_booted(self, nginx: Container) -> bool:
        return nginx.running and not nginx.drains and self.clock.time() - nginx.started >= BOOT_S

    def _hangs(self, one: Container) -> bool:
        return self.clock.time() < one.hangs_until

    def _is_healthy(self, one: Container) -> bool:
        if not one.running or self._hangs(one) or one.said["fault"] in ("unhealthy", "restarts"):
            return False
        if one.service == NGINX:
            return all(self._usable(one, name) for name in _parsed(one.conf)["services"])
        return self.clock.time() - one.started >= HEALTHY_S

    def _is_ready(self, one: Container) -> bool:
        ill = self._hangs(one) or one.drains or one.said["fault"] in ("silent", "restarts")
        return one.running and not ill and self.clock.time() - one.started >= READY_S

    def _front(self) -> Container | None:
        """Find the nginx that gets new connections."""
        running = [one for one in self.containers.values() if one.service == NGINX and one.running]
        if self.diverted:
            return next((one for one in running if one.address == self.diverted), None)
        return next((one for one in running if one.name != STANDBY), None)

    def _reached(self, nginx: Container, service: str) -> list[Container]:
        """List the replicas that an nginx finds and that speak its protocol."""
        known = _parsed(nginx.conf)["services"].get(service)
        if not known or not self._has_booted(nginx):
            return []
        ports = {known["port"]}
        if nginx.said["finds_ports"]:
            ports |= set(map(str, self._note(proxy.PORTS).get(service, ())))
        found = [one for one in self.of(service) if one.running and one.said["network"] in nginx.said["networks"]]
        if known["uwsgi"]:
            return [one for one in found if one.said["protocol"] == "uwsgi"]
        return [one for one in found if one.said["port"] in ports]

    def _usable(self, nginx: Container, service: str) -> list[Container]:
        """List the replicas that an nginx sends requests to."""
        hold = self._note(proxy.ADMITTED)
        reached = [one for one in self._reached(nginx, service) if self._is_ready(one)]
        if hold.get("until_time", 0) < self.clock.time():
            return reached
        return [one for one in reached if one.address in hold["addresses"]]

    def _answering(self, service: str) -> list[Container]:
        front = self._front()
        return self._usable(front, service) if front else []

    def _note(self, name: str) -> dict[str, Any]:
        if name not in self._files:
            file = self._directory / name
            self._files[name] = _parsed(file.read_text()) if file.exists() else {}
        return self._files[name]

    def _has_static(self, one: Container) -> bool:
        name = f"static/{one.service}/{one.said['image'].rpartition(':')[2]}.txt"
        if name not in self._files:
            self._files[name] = {"exists": (self._directory / name).exists()}
        return bool(self._files[name]["exists"])

    def _balancer_status(self, nginx: Container) -> dict[str, Any]:
        known = {}
        for name in _parsed(nginx.conf)["services"]:
            usable = self._usable(nginx, name)
            seen = {one.address: {"ready": one in usable, "why": "answered 503"} for one in self._reached(nginx, name)}
            known[name] = {"replicas": seen}
        return {"config_sha1": _sha1(nginx.conf), "services": known}

    def _replica(self, one: Container, said: Config) -> Replica:
        plan = _plan(one.service, one.said)
        return Replica(
            id=one.id,
            name=one.name,
            service=one.service,
            networks=plan.networks,
            addresses=frozenset({one.address}),
            port=plan.port,
            protocol=plan.protocol,
            finds_ports=plan.finds_ports,
            fresh=_digest(one.said) == _digest(said),
            running=one.running,
            restarts=int(one.said["fault"] == "restarts"),
            exit_code=int(not one.running),
            since=f"{one.started:09.2f}",
        )

    def _wrong(self, what: str) -> None:
        if what not in self.wrongs:
            self.wrongs.append(what)
            self.story.append(f"   WRONG: {what}")


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@functools.cache
def _parsed(text: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(text)
    return said


def _plan(name: str, said: Config) -> Plan:
    if name == NGINX:
        return Plan(1, said["image"], frozenset(said["networks"]), finds_ports=said["finds_ports"])
    networks = frozenset({said["network"]})
    return Plan(said["count"], said["image"], networks, said["port"], said["protocol"], static="static")


def _digest(said: Config) -> str:
    """Return what a container is replaced for: all settings but the number, and but what nginx reads from a file."""
    return json.dumps({name: value for name, value in said.items() if name not in ("count", "conf")}, sort_keys=True)


def _is_broken(conf: str) -> bool:
    return '"broken"' in conf


class Bench:
    """A stack on a fake engine, and the deploys to it."""

    def __init__(self, directory: Path, surge: int) -> None:
        self.engine = FakeEngine(directory)
        self.stack = Stack(directory, self.engine)
        self.said: list[str] = []
        self.surge = surge
        self._was_killed = False
        self.settings = {"surge": surge, "start_seconds": 5}
        (directory / SETTINGS).write_text(json.dumps(self.settings))

    def render(self, of: Release) -> str:
        """Write a release as the role does, and return its id, which is made of its files."""
        applications = {service: one for service, one in of.items() if service != NGINX}
        known = {name: {"port": one["port"], "uwsgi": one["protocol"] == "uwsgi"} for name, one in applications.items()}
        networks = sorted({"default", *(one["network"] for one in applications.values())})
        compose = json.dumps({**applications, NGINX: {"networks": networks, **of[NGINX]}})
        conf = json.dumps({"text": of[NGINX]["conf"], "services": known})
        name = _sha1(compose + conf)[:12]
        folder = self.stack.releases.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compose.yml").write_text(compose)
        (folder / "nginx.conf").write_text(conf)
        self.engine.images |= {one["image"] for one in of.values()}
        return name

    def has(self, of: Release, *, days_ago: int = 1) -> str:
        """Run a release that was deployed some days ago, and return its id."""
        name = self.render(of)
        self.stack.bring_static(name)
        self.stack.releases.activate(name)
        self.engine.bring_up(replace=True, seconds=60)
        self.engine.settle()
        self.stack.releases.note_that_it_works(name, "joe")
        when = time.time() - 86_400 * days_ago
        os.utime(self.stack.releases.folder(name) / MARK, (when, when))
        return name

    def deploy(self, of: Release, fault: Fault | None = None) -> str:
        """Render and deploy a release; return how that failed, or an empty text when it did not."""
        name, job = self.render(of), self.job()
        self.said.clear()
        self.engine.watch(fault)
        self._was_killed = False
        try:
            deploy(self.stack, job, name, prepares=True)
        except (FleetError, CancelledError) as error:
            return str(error) or type(error).__name__
        except KilledError:
            self._was_killed = True
            return "killed"
        finally:
            self.engine.fault = None
        return ""

    def job(self) -> Job:
        return Job("jane", self.said.append, KILLED if self._was_killed else NOTHING_BEFORE)

    def runs(self, of: Release) -> bool:
        """Tell whether a release runs completely and alone, and everything of it takes traffic."""
        self.engine.settle()
        name = self.render(of)
        view = self.stack.inspect(name)
        ready = all(one.ready for service in view.state.applications.values() for one in service.replicas)
        return self.stack.releases.live() == name and view.as_wanted and view.nginx_current and ready

    @property
    def story(self) -> str:
        return "\n".join(["", *self.engine.story, "", *self.said])


@contextmanager
def bench(surge: int = 1) -> Iterator[Bench]:
    """Return a stack without a release on a machine whose time does not pass."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        made = Bench(Path(folder), surge)
        engine = made.engine
        for module in (proxy, rollout):
            patch.setattr(module, "time", engine.clock)
            patch.setattr(module, "can_divert", lambda: engine.can_divert)
        patch.setattr(proxy, "run", engine.nft)
        patch.setattr(proxy, "attempt", engine.ask_nft)
        patch.setattr(proxy, "_connects", engine.connects)
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, _stepwise(engine, getattr(Path, name)))
        yield made


def _stepwise(engine: FakeEngine, change: Callable[..., Any]) -> Callable[..., Any]:
    """Make a change of a file a step of the roll-out that may be the last one, but that does not fail."""

    def changed(path: Path, *arguments: Any, **options: Any) -> Any:
        engine.step(f"{change.__name__} {path.name}", may_fail=False)
        result = change(path, *arguments, **options)
        engine.file_changed()
        return result

    return changed
