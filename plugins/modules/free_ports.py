"""Ansible module: says which ports nginx could not be published on, in a sentence for each as ``problems``."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess

from ansible.module_utils.basic import AnsibleModule


def _published_by(project: str, port: int) -> bool:
    """Tell whether a port that is in use is the project's own, as far as the engine can be asked."""
    if not shutil.which("docker"):
        return False
    label = f"label=com.docker.compose.project={project}"
    ours = ["docker", "ps", "--quiet", "--filter", f"publish={port}", "--filter", label]
    answer = subprocess.run(ours, capture_output=True, check=False, text=True)
    # Nothing is known of an engine that may not be asked; an engine that does not run publishes nothing.
    return bool(answer.stdout.strip()) or "permission denied" in answer.stderr.lower()


def port_problem(address: str, port: int, project: str, variable: str = "stack_port") -> str | None:
    """Say what stands in the way of nginx; None when the port is free or the project's."""
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
    if error.errno == errno.EADDRINUSE:
        ours = _published_by(project, port)
        other = f"{variable} is {port}: something else listens on {address}:{port}; allowed is a free port"
        return None if ours else other
    if error.errno in {errno.EADDRNOTAVAIL, socket.EAI_NONAME}:
        return f"stack_address is {address!r}: this machine has no such address; allowed is one that it has"
    if error.errno == errno.EACCES:
        # Only root may bind it here, but it is the engine that will, and the engine is root.
        return None
    return f"{variable} is {port}: {address}:{port} cannot be used ({error.strerror}); allowed is a free port"


def main() -> None:
    """Run the module."""
    options = {
        "address": {"type": "str", "required": True},
        # By the name of the variable that each comes from.
        "ports": {"type": "dict", "required": True},
        # The Compose project that may have them.
        "project": {"type": "str", "required": True},
    }
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    wanted = module.params
    found = [
        port_problem(wanted["address"], int(port), wanted["project"], variable)
        for variable, port in wanted["ports"].items()
    ]
    module.exit_json(changed=False, problems=[problem for problem in found if problem])


if __name__ == "__main__":
    main()
