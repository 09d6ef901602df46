"""Put into a copy of the sample app, as ``hello/faults.py``: an app that can be told to misbehave.

POST /fault/NAME causes the fault in the replica that gets the request. While a replica has the file ``/dev/shm/slow``,
each of its answers is late by the seconds in that file.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from flask import Flask

SLOW = Path("/dev/shm/slow")  # noqa: S108 (the container's own memory, with a single user)
BITE = 8 * 2**20
BOMB_LASTS_S = 20


def oom() -> str:
    """Take memory until the kernel ends the process."""
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1)) * BITE)


def bomb() -> str:
    """Fork until no more processes are allowed."""
    ends = time.monotonic() + BOMB_LASTS_S
    count = 0
    while time.monotonic() < ends:
        try:
            if os.fork() == 0:
                time.sleep(max(0.0, ends - time.monotonic()))
                os._exit(0)
            count += 1
        except OSError:
            time.sleep(0.1)
    return str(count)


def be_slow() -> None:
    """Delay the answer by the seconds in the file, if there is one."""
    if SLOW.exists():
        time.sleep(float(SLOW.read_text() or 0))


def install(app: Flask) -> None:
    """Add the faults to an app."""
    app.before_request(be_slow)
    for fault in (oom, bomb):
        app.add_url_rule(f"/fault/{fault.__name__}", fault.__name__, fault, methods=["POST"])


def break_in(app: Path) -> None:
    """Put the faults into a copy of the app's folder."""
    shutil.copyfile(__file__, app / "hello/faults.py")
    wsgi = app / "wsgi.py"
    wsgi.write_text(f"{wsgi.read_text()}\nfrom hello import faults\n\nfaults.install(app)\n")
