"""What can be said of this machine, when the stack runs on it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

from preflight.services import no_room
from preflight.variables import Variables


def _published_by(project: str, port: int) -> bool:
    """Tell whether a port that is in use is the project's own, as far as the engine can be asked."""
    if not shutil.which("docker"):
        return False
    label = f"label=com.docker.compose.project={project}"
    ours = ["docker", "ps", "--quiet", "--filter", f"publish={port}", "--filter", label]
    answer = subprocess.run(ours, capture_output=True, check=False, text=True)
    # An engine that does not answer is the docker role's business, which says more about it.
    return answer.returncode != 0 or bool(answer.stdout.strip())


def port_problem(address: str, port: int, project: str, variable: str = "stack_port") -> str | None:
    """Tell what stands in the way of nginx.

    Args:
        address: Address to publish on.
        port: Port to publish on.
        project: Name of the Compose project that may have the port.
        variable: Name of the variable that the port comes from.

    Returns:
        A sentence, or None when the port is free or the project's.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return _words(error, address, port, project, variable)
    return None


def _words(error: OSError, address: str, port: int, project: str, variable: str) -> str | None:
    """Say why an address cannot be bound; None when that does not matter."""
    match error.errno:
        case errno.EADDRINUSE if _published_by(project, port):
            return None
        case errno.EADDRINUSE:
            return f"{variable} is {port}: something else listens on {address}:{port}; allowed is a free port"
        case errno.EADDRNOTAVAIL | socket.EAI_NONAME:
            return f"stack_address is {address!r}: this machine has no such address; allowed is one that it has"
        case errno.EACCES:
            # Only root may bind it here, but it is the engine that will, and the engine is root.
            return None
    return f"{variable} is {port}: {address}:{port} cannot be used ({error.strerror}); allowed is a free port"


def local_problems(variables: Variables) -> Iterator[str]:
    """Check this machine.

    Args:
        variables: Values by name, already checked one by one.

    Yields:
        A sentence for each problem.
    """
    machine_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    yield from no_room(variables, "this machine", len(os.sched_getaffinity(0)), machine_mib)
    tls = variables.get("certificate_mode", "none") != "none"
    for variable in ["stack_port", *(["stack_https_port"] if tls else [])]:
        if problem := port_problem(
            variables["stack_address"], int(variables[variable]), variables["stack_name"], variable
        ):
            yield problem
