"""The application that every server of this project serves: the service's own, in its wrapper."""

import os
from pathlib import Path

from _flask_fleet import logs
from _flask_fleet.loading import load_or_explain
from _flask_fleet.work import Work
from _flask_fleet.wrapper import Wrapper, only_for

logs.install()

application = Wrapper(
    only_for(os.environ.get("SERVICE", ""), load_or_explain(os.environ.get("APP", "wsgi:app"))),
    health_path=os.environ.get("HEALTH_PATH", "/healthz"),
    ready_path=os.environ.get("READY_PATH", "/readyz"),
    drain_file=Path(os.environ.get("DRAIN_FILE", "/dev/shm/draining")),  # noqa: S108 (only this container sees it)
    work=Work(
        # nginx adds 5 s, and takes a moment.
        request_seconds=float(os.environ.get("SILENCE_SECONDS", "30")) + 6,
        pause_seconds=float(os.environ.get("HANG_SECONDS", "0")),
        file=Path(os.environ.get("SERVER_FILE", "/dev/shm/server") + ".work"),  # noqa: S108
    ),
)
