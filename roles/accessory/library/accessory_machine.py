"""Ansible module: looks after the accessories on their machine: waits, logs in, dumps, restores, removes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: accessory_machine
short_description: Wait for accessories, dump, restore or remove them
description:
  - What differs between the kinds is in their images, as programs called C(login), C(dump), C(check), C(restore) and
    C(settle).
options:
  project:
    description: Name of the Compose project.
    type: str
    required: true
  action:
    description:
      - C(wait) waits until they are healthy and logs in as an app would; C(dump) writes a backup of one into a file and
        reads it again; C(restore) puts one in the place of what is there, and back if it does not work; C(settle)
        removes containers, passwords and images that are not wanted any more; C(down) removes all but the data.
    type: str
    required: true
    choices: [wait, dump, restore, settle, down]
  accessories:
    description: Names; all that are described for C(wait) and C(settle), one for C(dump) and C(restore).
    type: list
    elements: str
    default: []
  path:
    description: The backup, for C(dump) and C(restore).
    type: path
  restarts:
    description: Whether a restored backup is read at the next start only, for C(restore).
    type: bool
    default: false
  directory:
    description: Folder of the project, for C(settle).
    type: path
  data:
    description: Whether to remove the data too, for C(down).
    type: str
    choices: [keep, delete]
    default: keep
  seconds:
    description: How long a start may take, for C(wait) and C(restore).
    type: int
    default: 120
attributes:
  check_mode:
    support: full
"""

EXAMPLES = """
- name: Wait for the database
  accessory_machine:
    project: flask-fleet-data
    action: wait
    accessories: [db]
"""

RETURN = """
removed:
  description: Names of the accessories that went.
  type: list
  returned: with action settle or down
kept:
  description: Names of volumes that nothing uses now.
  type: list
  returned: with action settle or down
"""

LOG_LINES = 20
POLL_S = 0.5
COMMAND_TIMEOUT_S = 900
DUMP_TIMEOUT_S = 6 * 3600
MOST_RESTARTS = 3
"""A server that ended so often while it was waited for will not start by itself."""
REFUSED = "password authentication failed"
"""What PostgreSQL says to a wrong password, and to nothing else."""
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
SECRETS_TARGET = "/run/secrets"


class StepError(Exception):
    """A step failed; the message is for a person."""


def attempt(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail.

    Args:
        command: Program and arguments.
        options: Of ``subprocess.run``, mainly where its input comes from and its output goes to.

    Returns:
        How it ended, with what it said.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given = pipes | {"timeout": COMMAND_TIMEOUT_S} | options
    done: subprocess.CompletedProcess[str] = subprocess.run(command, text=True, check=False, **given)
    return done


def run(command: Sequence[str]) -> str:
    """Run a command.

    Args:
        command: Program and arguments.

    Returns:
        What it printed.

    Raises:
        StepError: It failed; the message has what it printed on stderr.
    """
    done = attempt(command)
    if done.returncode:
        raise StepError(f"{' '.join(command[:4])} …: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Project:
    """The Compose project of the accessories on this machine."""

    def __init__(self, name: str) -> None:
        """Name it.

        Args:
            name: Of the Compose project.
        """
        self.name = name

    def listed(self, *command: str) -> list[str]:
        """List what the engine has of the project.

        Args:
            command: Such as ``volume ls``.

        Returns:
            Names or ids, one for each line.
        """
        return run(["docker", *command, "--filter", f"label={PROJECT_LABEL}={self.name}"]).split()

    def containers(self) -> list[dict[str, Any]]:
        """Inspect the project's containers, dead ones too.

        Returns:
            The engine's answer for each.
        """
        ids = self.listed("ps", "--all", "--quiet", "--no-trunc")
        # One may be gone meanwhile, which is no reason to fail.
        found: list[dict[str, Any]] = json.loads(attempt(["docker", "inspect", *ids]).stdout or "[]") if ids else []
        return found

    def container(self, accessory: str) -> dict[str, Any]:
        """Inspect the container of an accessory.

        Args:
            accessory: Its name.

        Returns:
            The engine's answer.

        Raises:
            StepError: There is none that runs.
        """
        for one in self.containers():
            if service(one) == accessory and one["State"]["Running"]:
                return one
        raise StepError(f"{accessory} does not run here. To start it: playbooks/deploy.yml")


def service(container: dict[str, Any]) -> str:
    """Say which accessory a container is of.

    Args:
        container: As the engine inspects it.

    Returns:
        Its name.
    """
    return str(container["Config"]["Labels"][SERVICE_LABEL])


def last_words(container: str) -> str:
    """Collect what helps to find out why a server does not work.

    Args:
        container: Its id.

    Returns:
        Its last log lines.
    """
    done = attempt(["docker", "logs", "--tail", str(LOG_LINES), container], stderr=subprocess.STDOUT)
    return done.stdout.strip()


def wait_until_healthy(project: Project, accessory: str, seconds: int) -> dict[str, Any]:
    """Wait until an accessory serves.

    Args:
        project: The accessories.
        accessory: Its name.
        seconds: How long at most.

    Returns:
        Its container.

    Raises:
        StepError: It never did; the message has its last log lines.
    """
    deadline, restarts_before = time.monotonic() + seconds, None
    while True:
        found = [one for one in project.containers() if service(one) == accessory]
        if not found:
            raise StepError(f"{accessory} has no container")
        (one, *_) = found
        state, restarts = one["State"], int(one["RestartCount"])
        restarts_before = restarts if restarts_before is None else restarts_before
        if state["Running"] and state.get("Health", {}).get("Status") == "healthy":
            return one
        is_hopeless = restarts - restarts_before >= MOST_RESTARTS
        if is_hopeless or time.monotonic() > deadline:
            how = f"ended {restarts} times" if is_hopeless else f"did not serve within {seconds} s"
            raise StepError(f"{accessory} {how}. Its last log lines:\n{last_words(one['Id'])}")
        time.sleep(POLL_S)


def log_in(project: Project, position: int, accessory: str, container: str) -> None:
    """Log in as an app would: data that is there already may have been made with another password.

    Args:
        project: The accessories.
        position: Which entry of ``accessory_services`` it is, for the message.
        accessory: Its name.
        container: Its id.

    Raises:
        StepError: That does not work.
    """
    done = attempt(["docker", "exec", container, "login"])
    if done.returncode == 0:
        return
    said = done.stderr.strip()
    where = f"accessory_services[{position}] ({accessory})"
    if REFUSED in said:
        raise StepError(
            f"{where}: password is not the one that its volume {project.name}_{accessory} was initialised with. "
            "Allowed are: the old password in the vault; the new one in the database too (docs/databases.md says how); "
            "or a backup restored into a new volume. Nothing of the stack was touched."
        )
    raise StepError(f"{where}: logging in failed: {said}")


def wait(project: Project, accessories: Sequence[str], seconds: int) -> dict[str, Any]:
    """Wait until all accessories serve, and log in.

    Args:
        project: The accessories.
        accessories: Names, in the order of the inventory.
        seconds: How long each may take.

    Returns:
        Ansible's result.
    """
    for position, accessory in enumerate(accessories):
        log_in(project, position, accessory, wait_until_healthy(project, accessory, seconds)["Id"])
    return {"changed": False}


def inside(
    container: str, program: str, what: str, *, source: Path | None = None, target: IO[str] | None = None
) -> None:
    """Run a program of the image, with a file as its input or output.

    Args:
        container: Id of the container.
        program: Its name.
        what: What failed if it does, for the message.
        source: What it reads.
        target: Where it writes to.

    Raises:
        StepError: It failed; the message has its last words.
    """
    options: dict[str, Any] = {"timeout": DUMP_TIMEOUT_S} | ({"stdout": target} if target else {})
    with source.open() if source else open(os.devnull) as given:  # noqa: PTH123 (the null device)
        done = attempt(["docker", "exec", "--interactive", container, program], stdin=given, **options)
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-LOG_LINES:])
        raise StepError(f"{what} (status {done.returncode}):\n{last}")


def dump(project: Project, accessory: str, path: Path) -> dict[str, Any]:
    """Write a backup into a file that nobody else can read, and read all of it again.

    Args:
        project: The accessories.
        accessory: Its name.
        path: The file; it must not exist, and does not when this fails.

    Returns:
        Ansible's result.
    """
    container = project.container(accessory)["Id"]
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            inside(container, "dump", f"the dump of {accessory} failed", target=file)
        inside(container, "check", f"the dump of {accessory} cannot be read again", source=path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return {"changed": True}


def restore(project: Project, accessory: str, path: Path, seconds: int, *, restarts: bool) -> dict[str, Any]:
    """Put a backup in the place of what an accessory has; if that fails, it has what it had.

    Args:
        project: The accessories.
        accessory: Its name.
        path: The backup.
        seconds: How long a start may take.
        restarts: Whether the backup is read at the next start only.

    Returns:
        Ansible's result.

    Raises:
        StepError: It failed.
    """
    container = project.container(accessory)["Id"]
    inside(container, "check", f"{accessory} was not touched: this is no backup that it can read", source=path)
    inside(container, "restore", f"the restore failed, and {accessory} has what it had", source=path)
    if restarts:
        run(["docker", "restart", container])
        try:
            wait_until_healthy(project, accessory, seconds)
        except StepError as error:
            # Else it may serve the backup late, and go back at some later start, without what was written meanwhile.
            run(["docker", "restart", container])
            raise StepError(f"the restore failed; {accessory} is started again with what it had: {error}") from error
        inside(container, "settle", f"the restore of {accessory} failed")
    return {"changed": True}


def doomed_secrets(directory: Path, containers: Sequence[dict[str, Any]]) -> list[Path]:
    """List the passwords that no container needs any more.

    Args:
        directory: Folder of the project.
        containers: Those that stay, as the engine inspects them.

    Returns:
        Folders.
    """
    mounts = [mount for one in containers for mount in one["Mounts"] if mount["Destination"] == SECRETS_TARGET]
    needed = {Path(mount["Source"]).name for mount in mounts}
    return [path for path in (directory / "secrets").glob("*") if path.name not in needed]


def old_images(containers: Sequence[dict[str, Any]], listed: Sequence[str]) -> list[str]:
    """Pick the images that came before those that run.

    Args:
        containers: Those that stay, as the engine inspects them.
        listed: References of all images of the engine.

    Returns:
        References of those that have the name of one that runs, but another tag.
    """
    used = {str(one["Config"]["Image"]) for one in containers}
    names = {image.rpartition(":")[0] for image in used}
    return [image for image in listed if image.rpartition(":")[0] in names and image not in used]


def volumes_without_use(project: Project, accessories: Collection[str]) -> list[str]:
    """List the volumes that hold data of accessories that are gone.

    Args:
        project: The accessories.
        accessories: Names of those that stay.

    Returns:
        Names.
    """
    wanted = {f"{project.name}_{name}" for name in accessories}
    return sorted(set(project.listed("volume", "ls", "--quiet")) - wanted)


def settle(project: Project, accessories: Collection[str], directory: Path, *, really: bool) -> dict[str, Any]:
    """Remove containers, passwords and images that are not wanted any more. Data stays.

    Args:
        project: The accessories.
        accessories: Names of those that are described.
        directory: Folder of the project.
        really: False only looks.

    Returns:
        Ansible's result.
    """
    containers = project.containers()
    staying = [one for one in containers if service(one) in accessories]
    going = [one for one in containers if service(one) not in accessories]
    secrets = doomed_secrets(directory, staying)
    images = old_images(staying, run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split())
    if really:
        remove([one["Id"] for one in going])
        for path in secrets:
            shutil.rmtree(path)
        # One that something else still runs stays.
        images = [image for image in images if attempt(["docker", "rmi", image]).returncode == 0]
        if going:
            run(["docker", "network", "prune", "--force", "--filter", f"label={PROJECT_LABEL}={project.name}"])
    return {
        "changed": bool(going or secrets or images),
        "removed": sorted({service(one) for one in going}),
        "kept": volumes_without_use(project, accessories) if going else [],
    }


def remove(containers: Sequence[str]) -> None:
    """Stop containers as long as they need, and remove them.

    Args:
        containers: Ids; may be empty.
    """
    if containers:
        run(["docker", "stop", *containers])
        run(["docker", "rm", "--force", *containers])


def down(project: Project, data: str, *, really: bool) -> dict[str, Any]:
    """Remove everything of the project; the data only when told.

    By its labels, because the folder with compose.yml may be gone already.

    Args:
        project: The accessories.
        data: ``keep`` or ``delete``.
        really: False only looks.

    Returns:
        Ansible's result.
    """
    containers = project.containers()
    networks = project.listed("network", "ls", "--quiet")
    volumes = sorted(project.listed("volume", "ls", "--quiet"))
    doomed = volumes if data == "delete" else []
    if really:
        remove([one["Id"] for one in containers])
        for kind, names in (("network", networks), ("volume", doomed)):
            if names:
                run(["docker", kind, "rm", *names])
    return {
        "changed": bool(containers or networks or doomed),
        "removed": sorted({service(one) for one in containers}),
        "kept": [name for name in volumes if name not in doomed],
    }


def step(project: Project, params: dict[str, Any], *, really: bool) -> dict[str, Any]:
    """Do what is asked for.

    Args:
        project: The accessories.
        params: The module's parameters.
        really: False in check mode.

    Returns:
        Ansible's result.
    """
    names, seconds = params["accessories"], params["seconds"]
    looking: dict[str, Callable[[], dict[str, Any]]] = {
        "settle": lambda: settle(project, names, Path(params["directory"]), really=really),
        "down": lambda: down(project, params["data"], really=really),
    }
    doing: dict[str, Callable[[], dict[str, Any]]] = {
        "wait": lambda: wait(project, names, seconds),
        "dump": lambda: dump(project, names[0], Path(params["path"])),
        "restore": lambda: restore(project, names[0], Path(params["path"]), seconds, restarts=params["restarts"]),
    }
    if params["action"] in looking:
        return looking[params["action"]]()
    return doing[params["action"]]() if really else {"changed": params["action"] != "wait"}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "action": {"type": "str", "required": True, "choices": ["wait", "dump", "restore", "settle", "down"]},
            "accessories": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "path"},
            "restarts": {"type": "bool", "default": False},
            "directory": {"type": "path"},
            "data": {"type": "str", "choices": ["keep", "delete"], "default": "keep"},
            "seconds": {"type": "int", "default": 120},
        },
        required_if=[("action", kind, ["path"]) for kind in ("dump", "restore")]
        + [("action", "settle", ["directory"])],
        supports_check_mode=True,
    )
    try:
        result = step(Project(module.params["project"]), module.params, really=not module.check_mode)
    except (StepError, OSError, subprocess.TimeoutExpired) as error:
        result = {"failed": True, "msg": str(error)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
