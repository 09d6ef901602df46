"""Checks stack_services, and whether a machine has room for the services."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import BOOLEANS

from plugins.filter.build_context import ContextError, context_files, recipe_files
from plugins.filter.routes import DEFAULTS
from plugins.filter.sizes import SYSTEM_MIB, limits_mib, memory_mib, sized
from plugins.lookup.project import images, servers
from preflight.requirements import requirement_problems
from preflight.secrets import environment_problems, secret_problems
from preflight.variables import WHOLE_NUMBERS, Variables, did_you_mean, whole_number

MOST_REPLICAS = 50
"""More on one machine is most likely a typing error: one replica idles at about 40 MiB."""

ANSIBLE_NAMES = {"environment", "groups", "hostvars", "omit", "vars"}
"""Variables that Ansible sets itself, so that ``scale.yml -e NAME=5`` could not set them."""

STACK_ENVIRONMENT = (
    *("APP", "DRAIN_SECONDS", "HANG_SECONDS", "HEALTH_PATH", "PORT", "READY_PATH", "RELEASE", "SERVICE"),
    "SILENCE_SECONDS",
)
"""Environment variables that compose.yml gives to every service."""

PATHS = ("PATH", "PYTHONPATH")
"""Environment variables that the image has a value for; other values have to be added to it."""

APP = re.compile(
    r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<object>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?P<call>\(\))?"
)
"""Where the application is, as files/images/python/_flask_fleet/loading.py reads it."""

RECIPE = "files/flask"
"""The folder with the Dockerfile that a folder without one is built by."""

SMALLEST_MIB = 6
"""Docker refuses a smaller limit: https://docs.docker.com/engine/containers/resource_constraints/"""

LISTS = {
    "accessories": "[db]",
    "command": "[gunicorn, --threads, '8', 'shop:app']",
    "pre_deploy": "[flask, db, upgrade]",
}
"""Keys whose values are lists of texts, each with an example."""

SIZE = f"a size such as 128m or 1g, at least {SMALLEST_MIB}m"

NUMBERS = {
    "replicas": (1, MOST_REPLICAS),
    "body_bytes": WHOLE_NUMBERS["stack_body_bytes"],
    # The kernel gives higher ports to clients, and only root may listen below 1024.
    "port": (1024, 32767),
    # An hour is a long time for a WebSocket to say nothing.
    "timeout_seconds": (1, 3600),
}
"""Smallest and largest value of each key that is a whole number."""

FLAGS = ("internet", "publish", "streaming")


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


def _number_problems(service: Mapping[str, Any]) -> Iterator[str]:
    for key, (least, most) in NUMBERS.items():
        if key in service and not least <= (whole_number(service[key]) or 0) <= most:
            yield f"{key} is {service[key]!r}: allowed is a whole number from {least} to {most}"


def _server_problems(service: Mapping[str, Any]) -> Iterator[str]:
    server = servers().get(str(service.get("server", DEFAULTS["server"])))
    if server is None:
        yield f"server is {service['server']!r}: allowed is {' or '.join(servers())}"
    elif "protocol_port" in server and whole_number(service.get("port")) == server["protocol_port"]:
        yield (
            f"port is {service['port']!r}, where {server['title']} speaks its own protocol: "
            "allowed is another one for HTTP"
        )


def _service_problems(service: Mapping[str, Any], project: Path) -> Iterator[str]:
    yield from _number_problems(service)
    yield from _server_problems(service)
    if "memory" in service and (memory_mib(service["memory"]) or 0) < SMALLEST_MIB:
        yield f"memory is {service['memory']!r}: allowed is {SIZE}"
    if "cpus" in service and not _positive_number(service["cpus"]):
        yield f"cpus is {service['cpus']!r}: allowed is a number above 0, such as 0.5"
    for key in FLAGS:
        if str(service.get(key, "no")).lower() not in {*map(str, BOOLEANS)}:
            yield f"{key} is {service[key]!r}: allowed is true or false"
    yield from _list_problems(service)
    context = project / str(service.get("context", ""))
    yield from _app_problems(service, context)
    yield from _context_problems(context, project / RECIPE)
    yield from environment_problems(service.get("environment", {}), STACK_ENVIRONMENT)
    secrets = service.get("secrets", {})
    yield from secret_problems(secrets)
    if isinstance(secrets, Mapping):
        taken = {*STACK_ENVIRONMENT, *PATHS, *(service.get("environment") or ())}
        for name in sorted(taken & {str(name) for name in secrets}):
            yield f"the secret {name} has the name of an environment variable that is set: allowed is another name"


def _app_problems(service: Mapping[str, Any], context: Path) -> Iterator[str]:
    """Check the folder of a service, and that its application is there."""
    app = service.get("app", DEFAULTS["app"])
    named = APP.fullmatch(str(app))
    if not named:
        yield f"app is {app!r}: allowed is module:object, such as wsgi:app or shop:create_app()"
    is_told = f"context is {service.get('context')!r}"
    if not context.is_dir():
        yield f"{is_told}: there is no folder {context}"
    elif (context / "Dockerfile").is_file():
        yield from (f"{is_told}: {problem}" for problem in _dockerfile_problems(service, context / "Dockerfile"))
    elif problems := list(requirement_problems(context)):
        yield from (f"{is_told}: {problem}" for problem in problems)
    elif named and not service.get("command") and not _is_there(context, named["module"]):
        yield (
            f"app is {app!r}: there is no {named['module'].replace('.', '/')}.py in {context}; "
            "an application that a package brings is imported by a wsgi.py there"
        )


def _dockerfile_problems(service: Mapping[str, Any], file: Path) -> Iterator[str]:
    """Say what an image of this Dockerfile would lack."""
    text = file.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    for name in PATHS:
        if re.search(rf"^\s*ENV\s(?:.*\s)?{name}[= ](?!.*\${{?{name}\b)", text, re.MULTILINE | re.IGNORECASE):
            yield (
                f"{file} sets {name}, and what the image brings would not be found: "
                f"allowed is to add to it, as in ENV {name}=lib:${name}"
            )
    if not service.get("command") and not re.search(r"^FROM\s+\$\{?BASE\b", text, re.MULTILINE | re.IGNORECASE):
        yield (
            f"no line of {file} is FROM ${{BASE}}, the image that brings the server: "
            "allowed is such a line, no Dockerfile at all, or a command that starts another server"
        )


def _context_problems(context: Path, recipe: Path) -> Iterator[str]:
    """Find files that no image can hold, before a build waits for one or stops at one."""
    try:
        context_files(context, recipe_files(context, recipe)[1])
    except FileNotFoundError:
        # A folder that does not exist is reported already.
        return
    except OSError as error:
        yield f"context is {str(context)!r}: {error.filename} cannot be read: {error.strerror}"
    except ContextError as error:
        yield f"context is {str(context)!r}: {error}"


def _is_there(context: Path, module: str) -> bool:
    """Tell whether a module is a file of a folder, or what a requirement of that name brings."""
    names = module.split(".")
    files = [Path(source, *names) for source in ("", "src")]
    if any((context / file).with_suffix(".py").is_file() or (context / file).is_dir() for file in files):
        return True
    requirements = context / "requirements.txt"
    raw = requirements.read_bytes() if requirements.is_file() else b""
    is_utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    listed = raw.decode("utf-16" if is_utf_16 else "utf-8-sig", errors="replace")
    packages = re.findall(r"^[\w.-]+", listed, re.MULTILINE)
    # A package may be part of a namespace, as azure-storage is of azure.
    brought = {"_".join(names[: count + 1]).lower() for count in range(len(names))}
    return not brought.isdisjoint(re.sub(r"[-.]", "_", name).lower() for name in packages)


def bad_services(services: object, project: Path, option: Mapping[str, Any]) -> Iterator[str]:
    """Check stack_services by its argument spec, entry by entry and together; yield a sentence for each problem."""
    if not isinstance(services, list) or not services or not all(isinstance(entry, dict) for entry in services):
        yield "stack_services has to be a list with at least one service"
        return
    allowed, reserved = option["options"], {"base", *(image["name"] for image in images()), *ANSIBLE_NAMES}
    for position, service in enumerate(services):
        name = str(service.get("name"))
        where = f"stack_services[{position}] ({name})"
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?", name) or name in reserved:
            taken = ", ".join(sorted(reserved))
            yield (
                f"{where}: name is {name!r}: allowed are small letters, digits and hyphens, at most 31, "
                f"a letter first, no hyphen last, but not {taken}"
            )
        for key in sorted(set(service) - set(allowed)):
            yield f"{where}: {key} is no key of a service{did_you_mean(key, allowed)}"
        for problem in _service_problems(service, project):
            yield f"{where}: {problem}"
    names = [str(service.get("name")) for service in services]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"stack_services: two services have the name {name}"


def scaled(services: object, variables: Variables) -> object:
    """Replace numbers of replicas by those of variables that are named like services, such as app=5."""
    if not isinstance(services, list) or not all(isinstance(entry, dict) for entry in services):
        return services
    names = [str(entry.get("name")) for entry in services]
    given = [{"replicas": variables[name]} if name in variables else {} for name in names]
    return [entry | number for entry, number in zip(services, given, strict=True)]


def no_room(variables: Variables, machine: str, vcpus: int, machine_mib: int) -> Iterator[str]:
    """Yield a sentence for each limit that is above the machine, and when all memory limits together are."""
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
