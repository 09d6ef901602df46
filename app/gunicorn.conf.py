"""How gunicorn serves this app; every setting can be overridden by gunicorn's own GUNICORN_CMD_ARGS."""

import argparse
import os
import shlex
from typing import Any

from gunicorn.http import wsgi


class Collected(bytearray):
    """Takes the place of a socket and keeps what is sent."""

    sendall = bytearray.extend


class Response(wsgi.Response):  # type: ignore[misc]
    """Sends the header together with the first part of the body; gunicorn would send it alone.

    Between two sends another thread may get the interpreter for milliseconds. A process that is killed there leaves the
    balancer a header without a body, and it is too late to ask another replica.
    """

    def write(self, data: bytes) -> None:
        """Send a part of the body.

        :param data: the part
        """
        if self.headers_sent:
            super().write(data)
            return
        connection: Any = self.sock
        self.sock: Any = Collected()
        try:
            super().write(data)
            connection.sendall(self.sock)
        finally:
            self.sock = connection


# The name by which gunicorn makes every response.
wsgi.Response = Response


def final_worker_count(command_arguments: str, default: int) -> int:
    """Find out how many workers will run, although GUNICORN_CMD_ARGS is applied only after this file.

    :param command_arguments: the value of GUNICORN_CMD_ARGS, for example `--workers 2 --threads 8`
    :param default: the count when the arguments do not name one
    :return: the number of worker processes
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-w", "--workers", type=int, default=default)
    known, _ = parser.parse_known_args(shlex.split(command_arguments))
    return int(known.workers)


bind = f"0.0.0.0:{os.environ.get('PORT', '5000')}"

# Threads give keep-alive and concurrency while waiting; more replicas, not more workers, use more CPUs.
worker_class = "gthread"
workers = 1
threads = 4
# Sharing the imported app saves memory between workers; with one worker it would only delay its restart.
preload_app = final_worker_count(os.environ.get("GUNICORN_CMD_ARGS", ""), default=workers) > 1
# With reuse_port each worker owns a backlog that is reset when it ends: lost requests.
reuse_port = False

# Longer than the balancer keeps an idle connection, so that it is never this side that closes it first.
keepalive = 75
timeout = 30
# DRAIN_SECONDS plus this must fit into the container's stop grace period.
graceful_timeout = 20

# The heartbeat file: on a real disk a busy disk looks like a hung worker.
worker_tmp_dir = "/dev/shm"  # noqa: S108 (the container's own memory, with a single user)
# It would need a writable home, and nobody would talk to it.
control_socket_disable = True

# The balancer logs every request already; a second log costs half as much CPU again as the request.
accesslog = None
errorlog = "-"

# Any peer may set forwarded headers, because only the balancer reaches this port: it is never published.
forwarded_allow_ips = "*"
