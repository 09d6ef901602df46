"""What a rehearsal keeps on disk, and the lock around changing it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rehearsal import CREDENTIAL
from rehearsal.account import PAID
from rehearsal.errors import RehearsalError

DEFAULT_NAME = "rehearsal"
DEFAULT_PORT = 7152
DEFAULT_NETWORK = "10.71.0.0/16"
TAKEN = {"local", "receipts"}
"""What is kept beside the rehearsals: the stack of inventories/local, and the receipts of passed tests."""

CHANGES = {
    "image": "new instances now boot {}",
    "controller": "instances now see this machine as {}",
    "policy": "another policy is enforced",
}
"""Settings that `up` can change while a rehearsal runs, and what it then says."""

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class Settings:
    """One rehearsal, as it was started.

    Attributes:
        name: Its name; also the label's value in Docker.
        port: TCP port of the API on 127.0.0.1.
        network: CIDR block of the default VPC and of the Docker network.
        image: Docker image that new instances boot.
        token: Random word by which the API process proves that it is this rehearsal's.
        pid: Process id of the API; 0 until it is known.
        account: Whose account it plays: ``paid`` or ``new``.
        quotas: Values of quotas by code, where they are not the account's usual ones.
        controller: Address of this machine outside its network, as AWS sees it; empty when it has no other.
        policy: IAM policy document of who has the dummy credentials; everything is allowed when it is empty.
    """

    name: str
    port: int
    network: str
    image: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    pid: int = 0
    account: str = PAID
    quotas: dict[str, int] = field(default_factory=dict)
    controller: str = ""
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def docker_network(self) -> str:
        """Name of the Docker network."""
        return f"flask-fleet-{self.name}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point the AWS tools to this rehearsal."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": CREDENTIAL,
            "AWS_SECRET_ACCESS_KEY": CREDENTIAL,
            "AWS_EC2_METADATA_DISABLED": "true",
            # All of it is on this machine; some clients read the one, some the other.
            "NO_PROXY": "*",
            "no_proxy": "*",
        }


def base_directory() -> Path:
    """Find the directory that holds the state of all rehearsals; it need not exist."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "flask-fleet"


@dataclass(frozen=True)
class State:
    """The state directory of one rehearsal, which need not exist."""

    path: Path

    @classmethod
    def of(cls, name: str) -> State:
        """Find the state of a rehearsal, which may be empty.

        Raises:
            RehearsalError: The name cannot be used in host names and labels, or something else is kept under it.
        """
        if name in TAKEN:
            raise RehearsalError(f"--name {name!r}: something else is kept under that name")
        if not NAME.fullmatch(name):
            raise RehearsalError(f"--name {name!r}: small letters, digits and hyphens, at most 31, first a letter")
        return cls(base_directory() / name)

    @property
    def log(self) -> Path:
        """Log of the API process."""
        return self.path / "api.log"

    @property
    def calls(self) -> Path:
        """Every call of the API, one JSON object per line."""
        return self.path / "calls.jsonl"

    @property
    def memory(self) -> Path:
        """What the API process would otherwise forget."""
        return self.path / "memory"

    def instance(self, instance_id: str) -> Path:
        """Find the directory with an instance's files, which need not exist."""
        return self.path / "instances" / instance_id

    def load(self) -> Settings | None:
        """Read how the rehearsal was started last; None when it was not, or a crash left the file unreadable."""
        try:
            return Settings(**json.loads((self.path / "api.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, settings: Settings) -> None:
        """Write how the rehearsal is started, and the environment that leads to it."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        write(self.path / "api.json", json.dumps(asdict(settings), indent=2) + "\n")
        write(self.path / "pid", f"{settings.pid}\n")
        write(self.path / "env", exports(settings))

    def with_pid(self, settings: Settings, pid: int) -> Settings:
        """Note which process serves the API, and return the settings that name it."""
        known = replace(settings, pid=pid)
        self.save(known)
        return known


def exports(settings: Settings) -> str:
    """Write the environment as shell commands, with one ``export`` per line."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.environment().items())


def write(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a crash leaves the old or the new one."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


@contextmanager
def locked() -> Iterator[None]:
    """Let only one command start or stop rehearsals at a time; the kernel frees the lock of a killed one."""
    directory = base_directory()
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
