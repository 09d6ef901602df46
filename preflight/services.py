"""What can be said of stack_services, and whether a machine has room for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from preflight.variables import Variables, did_you_mean, whole_number

MOST_REPLICAS = 50
"""More on one machine is a slip of the finger: one replica idles at about 40 MiB."""

SYSTEM_MIB = 192
"""What Debian 13, sshd and the Docker engine take beside the containers, in MiB."""

IMAGE_NAMES = {"base", "instance", "nginx", "python"}
"""Names of files/images/ that a service cannot have."""

SIZE_UNITS_MIB = {"k": 1 / 1024, "m": 1.0, "g": 1024.0}


def memory_mib(size: object) -> float | None:
    """Read a memory size as Compose writes it.

    Args:
        size: Such as ``128m`` or ``1g``.

    Returns:
        MiB, or None when it cannot be read.
    """
    match = re.fullmatch(r"([1-9]\d*)([kmg])b?", str(size).lower())
    return int(match[1]) * SIZE_UNITS_MIB[match[2]] if match else None


def _positive_number(value: object) -> bool:
    try:
        return 0 < float(str(value)) < math.inf
    except ValueError:
        return False


def _service_problems(service: Mapping[str, Any], project: Path, servers: list[str]) -> Iterator[str]:
    replicas = service.get("replicas")
    if not 1 <= (whole_number(replicas) or 0) <= MOST_REPLICAS:
        yield f"replicas is {replicas!r}: allowed is a whole number from 1 to {MOST_REPLICAS}"
    if service.get("server") not in servers:
        yield f"server is {service.get('server')!r}: allowed is {' or '.join(servers)}"
    if memory_mib(service.get("memory")) is None:
        yield f"memory is {service.get('memory')!r}: allowed is a size such as 128m or 1g"
    if not _positive_number(service.get("cpus")):
        yield f"cpus is {service.get('cpus')!r}: allowed is a number above 0, such as 0.5"
    if not re.fullmatch(r"/[\w./~-]*", str(service.get("path", "")), re.ASCII):
        yield (
            f"path is {service.get('path')!r}: allowed is a path that begins with /, "
            "of letters, digits and the characters . _ ~ - /"
        )
    context = project / str(service.get("context", ""))
    if not context.is_dir():
        yield f"context is {service.get('context')!r}: there is no folder {context}"
    elif not (context / "Dockerfile").is_file():
        yield f"context is {service.get('context')!r}: there is no Dockerfile in {context}"


def bad_services(services: object, project: Path, option: Mapping[str, Any]) -> Iterator[str]:
    """Check stack_services, entry by entry and together.

    Args:
        services: Value of ``stack_services``.
        project: Folder that relative contexts start from.
        option: The argument spec of ``stack_services``.

    Yields:
        A sentence for each problem.
    """
    if not isinstance(services, list) or not services or not all(isinstance(entry, dict) for entry in services):
        yield "stack_services has to be a list with at least one service"
        return
    allowed = option["options"]
    for position, service in enumerate(services):
        name = str(service.get("name"))
        where = f"stack_services[{position}] ({name})"
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name) or name in IMAGE_NAMES:
            taken = ", ".join(sorted(IMAGE_NAMES))
            yield (
                f"{where}: name is {name!r}: allowed are small letters, digits and hyphens, at most 31, "
                f"a letter first, but not {taken}"
            )
        for key in sorted(set(service) - set(allowed)):
            yield f"{where}: {key} is no key of a service{did_you_mean(key, allowed)}"
        for problem in _service_problems(service, project, allowed["server"]["choices"]):
            yield f"{where}: {problem}"
    for key in ("name", "path"):
        values = [service.get(key) for service in services]
        for value in sorted({str(value) for value in values if values.count(value) > 1}):
            yield f"stack_services: two services have the {key} {value}"
    if all(service.get("path") != "/" for service in services):
        yield "stack_services: no service has the path /"


def scaled(services: object, variables: Variables) -> object:
    """Take numbers of replicas from variables that are named like services.

    Args:
        services: Value of ``stack_services``; left alone when it is not a list of services.
        variables: Values by name, such as app=5.

    Returns:
        The services with the other numbers.
    """
    if not isinstance(services, list) or not all(isinstance(entry, dict) for entry in services):
        return services
    return [entry | {"replicas": variables.get(str(entry.get("name")), entry.get("replicas"))} for entry in services]


def too_much_memory(variables: Variables, machine: str, machine_mib: int) -> Iterator[str]:
    """Compare all memory limits together with the machine.

    Args:
        variables: Values by name, already checked one by one.
        machine: What the machine is called in the message.
        machine_mib: Its memory in MiB.

    Yields:
        A sentence when the limits do not fit.
    """
    if memory_mib(variables["stack_nginx_memory"]) is None:
        yield f"stack_nginx_memory is {variables['stack_nginx_memory']!r}: allowed is a size such as 128m or 1g"
        return
    parts = [(f"nginx {variables['stack_nginx_memory']}", memory_mib(variables["stack_nginx_memory"]) or 0.0)]
    for service in variables["stack_services"]:
        label = f"{service['replicas']} x {service['memory']} of {service['name']}"
        parts.append((label, int(service["replicas"]) * (memory_mib(service["memory"]) or 0.0)))
    total = sum(size for _, size in parts)
    if total > machine_mib - SYSTEM_MIB:
        yield (
            f"stack_services: {', '.join(label for label, _ in parts)} are {total:.0f} MiB, but {machine} has "
            f"{machine_mib} MiB, of which the system needs {SYSTEM_MIB}: "
            "allowed are fewer replicas, less memory each, or a larger machine"
        )
