"""What a roll-out needs of an engine. Only what implements it knows how containers are made, found and limited."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

NGINX = "nginx"
"""Name of the service that balances the others."""


@dataclass(frozen=True)
class Replica:
    """A container of a service, dead ones too."""

    id: str
    name: str
    service: str
    networks: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    port: str = ""
    """Where its server listens; empty for nginx."""
    protocol: str = ""
    """What nginx speaks to it, ``http`` or ``uwsgi``; empty for nginx."""
    finds_ports: bool = False
    """Whether it is an nginx that finds replicas of one service at several ports."""
    fresh: bool = True
    """Whether it is as the release says that it was compared with."""
    running: bool = True
    health: str = "none"
    restarts: int = 0
    exit_code: int = 0
    out_of_memory: bool = False
    """Whether the kernel ended a process in it for want of memory."""
    since: str = ""
    """When it was started; later times compare greater."""
    ready: bool = False
    """Whether nginx sends requests to it."""
    served: int = 0


@dataclass(frozen=True)
class Plan:
    """What a release says of a service."""

    count: int
    image: str
    networks: frozenset[str] = frozenset()
    port: str = ""
    protocol: str = ""
    finds_ports: bool = False
    static: str = ""
    """The folder of its image that nginx serves; empty without one."""
    mounted: Mapping[str, str] = field(default_factory=dict)
    """Folders of the machine by where its containers find them."""


@dataclass(frozen=True)
class Service:
    """What a release says of a service, and what runs of it."""

    plan: Plan
    replicas: tuple[Replica, ...]

    @property
    def runs(self) -> bool:
        """Tell whether anything of it runs."""
        return any(one.running for one in self.replicas)

    @property
    def is_fresh(self) -> bool:
        """Tell whether nothing of it has to be replaced; also when nothing of it is there."""
        return all(one.fresh for one in self.replicas)


@dataclass(frozen=True)
class State:
    """What runs, beside what a release says."""

    services: Mapping[str, Service]
    orphans: tuple[Replica, ...] = ()
    """Containers whose service the release does not have."""

    @property
    def nginx(self) -> Service:
        """Give the service that balances the others."""
        return self.services[NGINX]

    @property
    def applications(self) -> dict[str, Service]:
        """Give the services that nginx balances."""
        return {name: self.services[name] for name in sorted(self.services) if name != NGINX}


@dataclass(frozen=True)
class Port:
    """A port that nginx publishes."""

    address: str
    published: str
    target: str


@dataclass(frozen=True)
class Answer:
    """How a command in a container ended."""

    status: int
    text: str
    """What it printed, errors included."""


class Engine(Protocol):
    """The engine, for one stack. All of it fails with a ``FleetError``."""

    def plan(self, release: str | None) -> dict[str, Plan]:
        """Read what a release says of each service; None is the live one."""

    def compare(self, release: str | None) -> State:
        """Compare what runs with a release; None is the live one."""

    def check(self, compose_file: Path, nginx_conf: Path) -> None:
        """Have the real programs read what a release says, before it can become live."""

    def replicas(self, ids: Sequence[str] | None = None) -> list[Replica]:
        """Inspect containers, or all of the stack; those that are gone meanwhile are left out."""

    def start(self, service: str, count: int) -> list[str]:
        """Start replicas of the live release until there are so many; give the ids of the new ones."""

    def bring_up(self, services: Sequence[str] = (), *, replace: bool, seconds: int) -> None:
        """Start what is missing of the live release, and wait until it is healthy.

        Without ``services`` that is all of it, and containers of other services go. What these depend on stays as it is
        where anything of it runs. ``replace`` also replaces what the release says otherwise.
        """

    def scale(self, numbers: Mapping[str, int], seconds: int) -> None:
        """Start or stop replicas until there are so many of each, and wait until they are healthy."""

    def stop(self, ids: Sequence[str]) -> None:
        """Have containers finish what they have, as long as their own stop time says, and remove them."""

    def remove(self, ids: Sequence[str]) -> None:
        """Remove containers at once, if they are there."""

    def health_failure(self, container: str) -> str:
        """Run a container's own health check now; give what is wrong, empty when it is healthy or has no check."""

    def log_tail(self, container: str) -> str:
        """Give the last log lines; of a container that was started again, those before that."""

    def execute(self, container: str, command: Sequence[str]) -> Answer:
        """Run a command in a container, or in the first one of a service."""

    def run_once(self, release: str, service: str, command: Sequence[str], seconds: int) -> Answer:
        """Run a command in a container of its own, with all that a replica of a release would have.

        The container is gone afterwards, also when the command did not end in time.
        """

    def standby(self) -> str:
        """Name the container that is tried beside nginx or stands in for it."""

    def start_standby(self, *, reachable: bool) -> None:
        """Start that container, an nginx of the live release that is published nowhere.

        When it is ``reachable``, services find it by nginx's names, and the engine lets packets in to it.
        """

    def address_of(self, container: str) -> str:
        """Give the address at which the machine reaches a container."""

    def published(self) -> list[Port]:
        """List what nginx of the live release publishes."""

    def prune(self, keep: Collection[str], removed: Collection[str]) -> None:
        """Remove images that no release needs any more, and networks that nothing uses.

        Images of releases that were ``removed`` go at once, others of the services whose images to keep when they are
        older than an hour.
        """

    def folder_of(self, image: str, folder: str) -> AbstractContextManager[IO[bytes]]:
        """Open a folder of an image, relative to its working directory, as a tar archive."""

    def facts(self) -> Mapping[str, Any]:
        """Say what the engine is, in its own words."""

    def openssl(self, image: str) -> str:
        """Give the version of OpenSSL that the nginx of an image was built with."""

    def usage(self) -> dict[str, tuple[str, str]]:
        """Give CPU, and memory of its limit, of each container by its name."""

    def logs(self, replicas: Sequence[Replica], lines: int) -> str:
        """Give the last lines of the logs of these, each line with its time and the name of who wrote it."""

    def down(self) -> None:
        """Remove the containers and networks of the stack."""
