"""What can be said of this machine, when the stack runs on it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

from preflight.services import no_room
from preflight.variables import Variables


def port_taken(address: str, port: int, project: str) -> bool:
    """Tell whether somebody else listens where nginx is to be published.

    Args:
        address: Address to publish on.
        port: Port to publish on.
        project: Name of the Compose project that may have the port.

    Returns:
        True when the port is in use and not by the project.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            label = f"label=com.docker.compose.project={project}"
            ours = ["docker", "ps", "--quiet", "--filter", f"publish={port}", "--filter", label]
            if not shutil.which("docker"):
                return True
            answer = subprocess.run(ours, capture_output=True, check=False, text=True)
            # An engine that does not answer is the docker role's business, which says more about it.
            return answer.returncode == 0 and not answer.stdout.strip()
    return False


def local_problems(variables: Variables) -> Iterator[str]:
    """Check this machine.

    Args:
        variables: Values by name, already checked one by one.

    Yields:
        A sentence for each problem.
    """
    machine_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    yield from no_room(variables, "this machine", len(os.sched_getaffinity(0)), machine_mib)
    address, port = variables["stack_address"], int(variables["stack_port"])
    if port_taken(address, port, variables["stack_name"]):
        yield f"stack_port is {port}: something else listens on {address}:{port}; allowed is a free port"
