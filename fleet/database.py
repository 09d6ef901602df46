"""The databases beside the stack: started, backed up, restored and removed; their data only when that is asked for.

What differs between their kinds is in their images, as programs called login, dump, check, restore and settle.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.engine import docker
from fleet.engine.docker import HASH_LABEL, PROJECT_LABEL, SERVICE_LABEL, Container
from fleet.release import COMPOSE_FILE, MOUNTED
from fleet.stack import SETTINGS
from fleet.system import LOG_LINES, CancelledError, FleetError, attempt, last_lines, run

POLL_S = 0.5
DUMP_TIMEOUT_S = 6 * 3600
MOST_RESTARTS = 3
"""A server that ended so often while it was waited for will not start by itself."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What the role wrote down."""

    project: str
    """Name of the Compose project."""
    names: Sequence[str]
    """In the order of the inventory."""
    restarts: Collection[str]
    """Those that read a restored backup at their next start only."""
    wrong_password: Mapping[str, str]
    """What each says to a wrong password and to nothing else, where its data keeps the one that it was made with."""
    start_seconds: int
    """How long one may take until it serves."""


class Databases:
    """The databases beside the stack in one folder, a Compose project of their own."""

    def __init__(self, stack: Path, project: str = "") -> None:
        """Read what the role wrote down; name the Compose project where those files may be gone already."""
        stack = stack.absolute()
        self.directory = stack.with_name(f"{stack.name}-data")
        file = self.directory / SETTINGS
        if file.exists():
            self.settings = Settings(**json.loads(file.read_text()))
        else:
            self.settings = Settings(project, names=(), restarts=(), wrong_password={}, start_seconds=0)
        self._project = project or self.settings.project

    def are_current(self) -> bool:
        """Tell whether all run as compose.yml says."""
        if not (self.directory / COMPOSE_FILE).exists():
            return False
        running = [one for one in self._containers() if one["State"]["Running"]]
        found = {_service(one): str(one["Config"]["Labels"][HASH_LABEL]) for one in running}
        return docker.config_hashes(self._compose()).items() <= found.items()

    def start(self, say: Say) -> dict[str, Any]:
        """Start what does not run, replace what compose.yml says otherwise, and see that all of it serves."""
        say(f"starts {', '.join(self.settings.names)}")
        run([*self._compose(), "up", "--detach", "--pull", "never"])
        self.log_in()
        return {"msg": "All databases serve."}

    def log_in(self) -> None:
        """Wait until all serve, and log in as an app would: their data may have been made with another password."""
        for position, name in enumerate(self.settings.names):
            done = attempt(["docker", "exec", self._wait_until_healthy(name)["Id"], "login"])
            if done.returncode == 0:
                continue
            said, where = done.stderr.strip(), f"accessory_services[{position}] ({name})"
            if (refusal := self.settings.wrong_password[name]) and refusal in said:
                raise FleetError(
                    f"{where}: password is not the one that its volume {self._project}_{name} was initialised with. "
                    "Allowed are: the old password in the vault; the new one in the database too (docs/databases.md "
                    "says how); or a backup restored into a new volume. Nothing of the stack was touched."
                )
            raise FleetError(f"{where}: logging in failed: {said}")

    def running(self, name: str) -> str:
        """Give the id of the container of a database that runs."""
        for one in self._containers() if name in self.settings.names else ():
            if _service(one) == name and one["State"]["Running"]:
                return str(one["Id"])
        raise FleetError(f"{name} does not run here. To start it: playbooks/deploy.yml")

    def backup(self, name: str, path: Path) -> dict[str, Any]:
        """Write a backup of a database into a new file that nobody else can read, and read all of it again.

        When this fails there is no file. Where root writes it, it belongs to the owner of its folder.
        """
        container = self.running(name)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b") as file:
            try:
                _execute(container, "dump", f"the dump of {name} failed", stdout=file)
                file.seek(0)
                _execute(container, "check", f"the dump of {name} cannot be read again", stdin=file)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), path.parent.stat().st_uid, -1)
            except BaseException:
                path.unlink()
                raise
        return {"changed": True, "msg": f"{path}: {path.stat().st_size} bytes, read whole and in order"}

    def restore(self, name: str, path: Path) -> dict[str, Any]:
        """Put a backup in the place of what a database has; if that fails, it has what it had."""
        container = self.running(name)
        with path.open("rb") as file:
            _execute(container, "check", f"{name} was not touched: this is no backup that it can read", stdin=file)
            file.seek(0)
            _execute(container, "restore", f"the restore failed, and {name} has what it had", stdin=file)
        if name in self.settings.restarts:
            run(["docker", "restart", container])
            try:
                self._wait_until_healthy(name)
            except (FleetError, CancelledError) as error:
                # Else it may serve the backup late, and go back at a later start, without what was written meanwhile.
                run(["docker", "restart", container])
                raise FleetError(f"the restore failed; {name} is started again with what it had: {error}") from error
            _execute(container, "settle", f"the restore of {name} failed")
        return {"msg": f"{name} has what {path.name} says."}

    def prune(self, *, really: bool) -> dict[str, Any]:
        """Remove containers, passwords and images that are not wanted any more. Data stays."""
        names = self.settings.names
        if not names:
            # Without the role's word for it nothing is unwanted.
            return _gone([], [], changed=False)
        containers = self._containers()
        staying = [one for one in containers if _service(one) in names]
        going = [one for one in containers if _service(one) not in names]
        secrets, images = self._unused_secrets(staying), _old_images(staying)
        if really:
            docker.stop([one["Id"] for one in going])
            for path in secrets:
                shutil.rmtree(path)
            # One that something else still runs stays.
            images = [image for image in images if attempt(["docker", "rmi", image]).returncode == 0]
            if going:
                run(["docker", "network", "prune", "--force", "--filter", self._label])
        wanted = {f"{self._project}_{name}" for name in names}
        kept = set(self._listed("volume", "ls", "--quiet")) - wanted if going else set()
        return _gone(going, kept, changed=bool(going or secrets or images))

    def down(self, *, deletes_data: bool, really: bool) -> dict[str, Any]:
        """Remove containers, networks and files, found by their labels; the files may be gone already."""
        containers, networks = self._containers(), self._listed("network", "ls", "--quiet")
        volumes = self._listed("volume", "ls", "--quiet")
        unwanted = volumes if deletes_data else []
        changed = bool(containers or networks or unwanted or self.directory.exists())
        if really:
            docker.stop([one["Id"] for one in containers])
            for kind, names in (("network", networks), ("volume", unwanted)):
                if names:
                    run(["docker", kind, "rm", *names])
            if self.directory.exists():
                shutil.rmtree(self.directory)
        return _gone(containers, set(volumes) - set(unwanted), changed=changed)

    @property
    def _label(self) -> str:
        return f"label={PROJECT_LABEL}={self._project}"

    def _compose(self) -> list[str]:
        return docker.compose(self.directory, self.directory / COMPOSE_FILE)

    def _listed(self, *command: str) -> list[str]:
        """List what the engine has of the project: names or ids."""
        return run(["docker", *command, "--filter", self._label]).split() if self._project else []

    def _containers(self) -> list[Container]:
        """Inspect the project's containers, dead ones too."""
        return docker.inspect(docker.containers({PROJECT_LABEL: self._project}) if self._project else [])

    def _wait_until_healthy(self, name: str) -> Container:
        """Wait until a database serves, and give its container."""
        seconds = self.settings.start_seconds
        deadline, restarts_before = time.monotonic() + seconds, None
        while True:
            found = [one for one in self._containers() if _service(one) == name]
            if not found:
                raise FleetError(f"{name} has no container")
            (one, *_) = found
            state, restarts = one["State"], int(one["RestartCount"])
            restarts_before = restarts if restarts_before is None else restarts_before
            if state["Running"] and state.get("Health", {}).get("Status") == "healthy":
                return one
            is_hopeless = restarts - restarts_before >= MOST_RESTARTS
            if is_hopeless or time.monotonic() > deadline:
                how = f"ended {restarts} times" if is_hopeless else f"did not serve within {seconds} s"
                log = docker.log(one["Id"], "--tail", str(LOG_LINES)).strip()
                raise FleetError(f"{name} {how}. Its last log lines:\n{log}")
            time.sleep(POLL_S)

    def _unused_secrets(self, staying: Sequence[Container]) -> list[Path]:
        """List the folders of passwords that no container needs any more."""
        mounts = [mount for one in staying for mount in one["Mounts"] if mount["Destination"] == MOUNTED["secrets"]]
        needed = {Path(mount["Source"]).name for mount in mounts}
        return [path for path in (self.directory / "secrets").glob("*") if path.name not in needed]


def _service(container: Container) -> str:
    return str(container["Config"]["Labels"][SERVICE_LABEL])


def _execute(container: str, program: str, failed: str, **files: Any) -> None:
    """Run a program of the image, with a file as its input or output; ``failed`` is what to say if it fails."""
    done = attempt(["docker", "exec", "--interactive", container, program], timeout=DUMP_TIMEOUT_S, **files)
    if done.returncode:
        raise FleetError(f"{failed} (status {done.returncode}):\n{last_lines(done.stderr)}")


def _old_images(staying: Sequence[Container]) -> list[str]:
    """Pick the images that have the name of one that runs, but another tag."""
    used = {str(one["Config"]["Image"]) for one in staying}
    names = {image.rpartition(":")[0] for image in used}
    return [image for image in docker.images() if image.rpartition(":")[0] in names and image not in used]


def _gone(containers: Sequence[Container], kept: Collection[str], *, changed: bool) -> dict[str, Any]:
    removed = sorted({_service(one) for one in containers})
    volumes = f" Volumes that nothing uses now: {', '.join(sorted(kept))}." if kept else ""
    text = f"Removed: {', '.join(removed) or 'no database'}.{volumes}"
    return {"changed": changed, "removed": removed, "kept": sorted(kept), "msg": text}
