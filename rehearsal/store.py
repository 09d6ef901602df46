"""The API's memory on disk, so that it survives the API process.

moto's backends are pickled as a whole: every object refers to others, and a journal of requests would give other ids
when it is replayed. Another version of moto cannot read them, which is found out and said.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import moto
from moto.backends import get_backend
from moto.core.base_backend import BackendDict

from rehearsal.errors import RehearsalError

LOG = logging.getLogger(__name__)

VERSION = (1, moto.__version__)
"""What wrote the file; anything else is not read."""

ATTEMPTS = 20
PAUSE = 0.01
"""Seconds between two attempts to catch a moment when no other request changes something."""

Backends = dict[str, dict[str, dict[str, Any]]]
"""moto's memory by service, account and region."""


class UnreadableError(RehearsalError):
    """What was kept cannot be used."""


@dataclass
class Memory:
    """All that a restarted API process has to know.

    Attributes:
        backends: moto's memory.
        machines: What the containers were made from, by instance id.
        launched: Reservations by client token.
        more: Of other parts of the rehearsal, by name.
    """

    backends: Backends = field(default_factory=dict)
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    launched: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)


def backends() -> Backends:
    """Collect every backend of moto that was used."""
    return {
        service.service_name: {account: dict(regions) for account, regions in list(service.items())}
        for service in list(vars(BackendDict)["_instances"])
    }


def put_back(kept: Backends) -> None:
    """Give moto the memory back that ``backends`` collected."""
    for name, accounts in kept.items():
        service: Any = get_backend(name)  # type: ignore[call-overload]
        for account, regions in accounts.items():
            for region, backend in regions.items():
                service[account][region] = backend


class Store:
    """The file with the memory."""

    def __init__(self, path: Path, memory: Callable[[], Memory]) -> None:
        """Keep in a file what ``memory`` collects."""
        self._path = path
        self._memory = memory
        self._lock = threading.Lock()
        self._written = b""

    def save(self) -> None:
        """Write what changed; a crash leaves the old file or the new one."""
        with self._lock:
            data = self._collect()
            if data == self._written:
                return
            draft = self._path.with_name(self._path.name + ".new")
            draft.touch(mode=0o600)
            draft.write_bytes(data)
            draft.replace(self._path)
            self._written = data

    def _collect(self) -> bytes:
        for _ in range(ATTEMPTS):
            try:
                return pickle.dumps((VERSION, self._memory()))
            except RuntimeError:  # another request changed a dictionary meanwhile
                time.sleep(PAUSE)
            except (pickle.PicklingError, TypeError, AttributeError):
                break
        memory = self._memory()
        memory.backends = {name: kept for name, kept in memory.backends.items() if _can_be_kept(name, kept)}
        return pickle.dumps((VERSION, memory))


def _can_be_kept(name: str, kept: Any) -> bool:
    try:
        pickle.dumps(kept)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError) as error:
        LOG.warning("%s will be forgotten when the API process ends: %s", name, error)
        return False
    return True


def read(path: Path) -> Memory:
    """Read what an earlier API process kept; an empty memory when there is no file.

    The file must be ours: reading it runs what it says.

    Raises:
        UnreadableError: The file is damaged, or of another version.
    """
    if not path.exists():
        return Memory()
    try:
        version, memory = pickle.loads(path.read_bytes())  # noqa: S301 (written by save, in a directory of mode 0700)
    except Exception as error:
        raise UnreadableError(f"{type(error).__name__}: {error}") from error
    if version != VERSION or not isinstance(memory, Memory):
        raise UnreadableError(f"written by version {version}, this is {VERSION}")
    return memory
