"""What can be said of stack_services, and whether a machine has room for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import BOOLEANS

from plugins.filter.sizes import SYSTEM_MIB, limits_mib, memory_mib, sized
from preflight.secrets import environment_problems, secret_problems
from preflight.variables import Variables, did_you_mean, whole_number

MOST_REPLICAS = 50
"""More on one machine is a slip of the finger: one replica idles at about 40 MiB."""

IMAGE_NAMES = {"base", "instance", "nginx", "postgresql", "python", "redis"}
"""Names of files/images/ that a service cannot have."""

STACK_ENVIRONMENT = ("DRAIN_SECONDS", "GUNICORN_CMD_ARGS", "HANG_SECONDS", "HEALTH_PATH", "PORT", "RELEASE")
"""What compose.yml tells every service."""

SMALLEST_MIB = 6
"""Docker refuses a smaller limit: https://docs.docker.com/engine/containers/resource_constraints/"""

LISTS = {"accessories": "[db]", "pre_deploy": "[flask, db, upgrade]"}
"""Keys whose values are lists of texts, each with an example."""

SIZE = f"a size such as 128m or 1g, at least {SMALLEST_MIB}m"


def _positive_number(value: object) -> bool:
    try:
        return 0 < float(str(value)) < math.inf
    except ValueError:
        return False


def _list_problems(service: Mapping[str, Any]) -> Iterator[str]:
    for key, example in LISTS.items():
        value = service.get(key, [])
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            yield f"{key} is {value!r}: allowed is a list of texts, such as {example}"


def _service_problems(service: Mapping[str, Any], project: Path, servers: list[str]) -> Iterator[str]:
    replicas = service.get("replicas", 1)
    if not 1 <= (whole_number(replicas) or 0) <= MOST_REPLICAS:
        yield f"replicas is {replicas!r}: allowed is a whole number from 1 to {MOST_REPLICAS}"
    if service.get("server") not in servers:
        yield f"server is {service.get('server')!r}: allowed is {' or '.join(servers)}"
    if "memory" in service and (memory_mib(service["memory"]) or 0) < SMALLEST_MIB:
        yield f"memory is {service['memory']!r}: allowed is {SIZE}"
    if "cpus" in service and not _positive_number(service["cpus"]):
        yield f"cpus is {service['cpus']!r}: allowed is a number above 0, such as 0.5"
    if not re.fullmatch(r"/[\w./~-]*", str(service.get("path", "")), re.ASCII):
        yield (
            f"path is {service.get('path')!r}: allowed is a path that begins with /, "
            "of letters, digits and the characters . _ ~ - /"
        )
    if str(service.get("internet", "no")).lower() not in {*map(str, BOOLEANS)}:
        yield f"internet is {service['internet']!r}: allowed is true or false"
    yield from _list_problems(service)
    context = project / str(service.get("context", ""))
    if not context.is_dir():
        yield f"context is {service.get('context')!r}: there is no folder {context}"
    elif not (context / "Dockerfile").is_file():
        yield f"context is {service.get('context')!r}: there is no Dockerfile in {context}"
    yield from environment_problems(service.get("environment", {}), STACK_ENVIRONMENT)
    yield from secret_problems(service.get("secrets", {}))


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
    names = [str(entry.get("name")) for entry in services]
    given = [{"replicas": variables[name]} if name in variables else {} for name in names]
    return [entry | number for entry, number in zip(services, given, strict=True)]


def no_room(variables: Variables, machine: str, vcpus: int, machine_mib: int) -> Iterator[str]:
    """Compare the limits with the machine.

    Args:
        variables: Values by name, already checked one by one.
        machine: What the machine is called in the message.
        vcpus: Its number of vCPUs.
        machine_mib: Its memory in MiB.

    Yields:
        A sentence for each limit that is above the machine, and when all memory limits together are.
    """
    nginx = variables["stack_nginx_memory"]
    if (memory_mib(nginx) or 0) < SMALLEST_MIB:
        yield f"stack_nginx_memory is {nginx!r}: allowed is {SIZE}"
        return
    accessories = variables["accessory_services"]
    spare_mib = machine_mib - int(limits_mib(accessories))
    services = sized(variables["stack_services"], vcpus, spare_mib, nginx, variables["stack_surge"])
    beside = {"nginx": nginx, **{one["name"]: one["memory"] for one in accessories}}
    parts = [(f"{name} {memory}", memory_mib(memory) or 0.0) for name, memory in beside.items()]
    for position, service in enumerate(services):
        if float(service["cpus"]) > vcpus:
            yield (
                f"stack_services[{position}] ({service['name']}): cpus is {service['cpus']}, but {machine} has "
                f"{vcpus} {'vCPU' if vcpus == 1 else 'vCPUs'}: allowed is at most {vcpus}, or a larger machine"
            )
        label = f"{service['replicas']} x {service['memory']} of {service['name']}"
        parts.append((label, service["replicas"] * (memory_mib(service["memory"]) or 0.0)))
    total = sum(size for _, size in parts)
    if total > machine_mib - SYSTEM_MIB:
        yield (
            f"stack_services: {', '.join(label for label, _ in parts)} are {total:.0f} MiB, but {machine} has "
            f"{machine_mib} MiB, of which the system needs {SYSTEM_MIB}: "
            "allowed are fewer replicas, less memory each, or a larger machine"
        )
