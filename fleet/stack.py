"""The stack in one folder of the machine: its releases, its engine and its nginx together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleet import static_files
from fleet.engine.base import Engine, Replica, Service, State
from fleet.engine.compose import Compose
from fleet.proxy import Proxy
from fleet.release import Releases
from fleet.system import FleetError

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Settings:
    """What a deploy goes by, as the role wrote it down."""

    surge: int = 1
    """How many replicas more than it shall have a service may have while it is replaced."""
    start_seconds: int = 60
    keep_releases: int = 5
    pre_deploy: Mapping[str, list[str]] = field(default_factory=dict)
    """The command of each service that has to succeed before."""
    pre_deploy_seconds: int = 300


@dataclass(frozen=True)
class View:
    """What runs, and whether all of it is as a release says."""

    state: State
    nginx_current: bool
    """Whether nginx runs with the configuration of the release."""
    has_standby: bool
    """Whether something stands in for nginx."""
    as_wanted: bool
    """Whether there are as many replicas as there shall be, fresh ones alone, and nothing else."""


class Stack:
    """The stack in one folder of this machine."""

    def __init__(self, directory: Path, engine: Engine | None = None) -> None:
        """Name the folder with compose.yml; another engine than Compose is for tests."""
        self.directory = directory
        self.releases = Releases(directory)
        self.engine: Engine = engine or Compose(self.releases)
        self.proxy = Proxy(self.engine, directory)

    @property
    def settings(self) -> Settings:
        """Read what a deploy goes by."""
        file = self.directory / SETTINGS
        known = {one.name for one in fields(Settings)}
        said = json.loads(file.read_text()) if file.exists() else {}
        return Settings(**{name: value for name, value in said.items() if name in known})

    def inspect(self, release: str | None) -> View:
        """Compare what runs with a release; None is the live one."""
        state = self.engine.compare(release)
        status = self.proxy.status() if self.releases.live() else {}
        state = State({name: _with_traffic(one, name, status) for name, one in state.services.items()}, state.orphans)
        has_standby = bool(self.releases.live()) and self.proxy.has_standby()
        as_wanted = all(
            len(one.replicas) == one.plan.count and all(replica.fresh and replica.running for replica in one.replicas)
            for one in state.services.values()
        )
        return View(
            state=state,
            nginx_current=status.get("config_sha1") == self.releases.nginx_conf_sha1(release),
            has_standby=has_standby,
            as_wanted=as_wanted and not (state.orphans or has_standby),
        )

    def bring_static(self, release: str) -> None:
        """Have nginx find the static files of a release, before a page can ask for them."""
        for name, plan in self.engine.plan(release).items():
            if plan.static:
                static_files.bring(self.engine, self.directory / "static", name, plan.image, plan.static)

    def prune(self, failed: str = "") -> None:
        """Remove what no kept release needs: folders, secrets, images, networks and static files.

        Nobody will deploy the release that ``failed`` again.
        """
        worked = [one.id for one in self.releases.kept()][: self.settings.keep_releases]
        keep = {*worked, *self.releases.about_to_be_deployed()} - {failed}
        rendered = {path.name for path in (self.directory / "releases").iterdir()}
        removed = {plan.image for release in rendered - keep for plan in self._plans(release).values()}
        # One whose files were refused, or are just being written, needs nothing.
        readable = [release for release in sorted(keep) if self.releases.has_files(release)]
        plans = [one for release in readable for one in self.engine.plan(release).items()]
        self.releases.prune(keep)
        self.releases.prune_mounted([mount for _, plan in plans for mount in plan.mounted.items()])
        self.engine.prune({plan.image for _, plan in plans}, removed)
        static: dict[str, list[str]] = {}
        for name, plan in plans:
            if plan.static:
                static.setdefault(name, []).append(plan.image)
        static_files.prune(self.directory / "static", static)

    def down(self) -> None:
        """Remove what runs, and all files."""
        if self.releases.live():
            # Of a deploy that was killed: the rules would go on leading the port to a container that is gone.
            self.proxy.end_diversion()
            self.engine.down()
        shutil.rmtree(self.directory)

    def audit(self, what: str, who: str) -> None:
        """Write a line into the audit log."""
        with (self.directory / "audit.log").open("a") as log:
            log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {what} by {who}\n")

    def _plans(self, release: str) -> Mapping[str, Any]:
        """Read a release that goes; of one that was interrupted half of its files may be there."""
        try:
            return self.engine.plan(release)
        except FleetError:
            return {}


def _with_traffic(service: Service, name: str, status: Mapping[str, Any]) -> Service:
    """Add what nginx knows of each replica."""
    known = status.get("services", {}).get(name, {}).get("replicas", {})

    def with_traffic(replica: Replica) -> Replica:
        seen = [known[address] for address in replica.addresses if address in known]
        ready = any(one["ready"] for one in seen)
        return changed(replica, ready=ready, served=sum(one.get("served", 0) for one in seen))

    return changed(service, replicas=tuple(map(with_traffic, service.replicas)))
