"""Ansible action: refuses bad input before anything is touched, with every problem found in one message.

Argument specs check types when a role begins, which for the last role is after the instances exist, and they check
neither ranges nor misspelt names. This looks at everything first.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import boto3
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from botocore.exceptions import BotoCoreError, ClientError

Variables = Mapping[str, Any]

WHOLE_NUMBERS = {
    "ec2_count": (1, 20),
    "ec2_volume_size": (8, 16384),
    "host_swap_mib": (0, 16384),
    "stack_drain_seconds": (1, 300),
    "stack_hang_seconds": (0, 3600),
    "stack_port": (1, 65535),
    "stack_keep_releases": (1, 100),
    "stack_lock_seconds": (60, 86400),
    "stack_requests_per_replica": (1, 1000),
    "stack_slow_start_seconds": (0, 600),
    "stack_start_seconds": (5, 1800),
    "stack_stop_seconds": (1, 600),
    "stack_surge": (1, 50),
}
"""Smallest and largest value that makes sense for a number of ours; sizes are in GiB or MiB, times in seconds."""

MOST_REPLICAS = 50
"""More on one machine is a slip of the finger: one replica idles at about 40 MiB."""

SYSTEM_MIB = 192
"""What Debian 13, sshd and the Docker engine take beside the containers, in MiB."""

IMAGE_NAMES = {"base", "instance", "nginx", "python"}
"""Names of files/images/ that a service cannot have."""

SIZE_UNITS_MIB = {"k": 1 / 1024, "m": 1.0, "g": 1024.0}


def known_variables(roles: Path) -> dict[str, dict[str, Any]]:
    """Read the argument specs of all roles.

    Args:
        roles: Folder of the roles.

    Returns:
        The options of every role's main entry point, by the role's name.
    """
    return {
        path.parent.parent.name: yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
        for path in sorted(roles.glob("*/meta/argument_specs.yml"))
    }


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def misspelt(names: Iterable[str], options: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Find variables that look like ours but are not.

    Args:
        names: Names of all variables that are set.
        options: As ``known_variables`` gives them.

    Yields:
        A sentence for each problem.
    """
    known = {name for of_role in options.values() for name in of_role}
    prefixes = tuple(f"{role}_" for role in options)
    for name in sorted(set(names) - known):
        looks_like_ours = not name.startswith("_") and get_close_matches(name, known, n=1, cutoff=0.9)
        if name.startswith(prefixes) or looks_like_ours:
            yield f"{name} is no variable of this project{_did_you_mean(name, known)}"


def wrong_types(variables: Variables, options: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Check every variable that is set against its role's argument spec.

    Args:
        variables: Values by name.
        options: As ``known_variables`` gives them.

    Yields:
        A sentence for each problem.
    """
    for of_role in options.values():
        # Services have checks of their own, which name the service.
        spec = {name: option for name, option in of_role.items() if name in variables and name != "stack_services"}
        result = ArgumentSpecValidator(spec).validate({name: variables[name] for name in spec})
        yield from result.error_messages


def _whole_number(value: object) -> int | None:
    text = str(value)
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else None


def out_of_range(variables: Variables) -> Iterator[str]:
    """Check the numbers.

    Args:
        variables: Values by name.

    Yields:
        A sentence for each problem.
    """
    for name, (smallest, largest) in WHOLE_NUMBERS.items():
        if name not in variables:
            continue
        number = _whole_number(variables[name])
        if number is None or not smallest <= number <= largest:
            yield f"{name} is {variables[name]!r}: allowed is a whole number from {smallest} to {largest}"


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
    if not 1 <= (_whole_number(replicas) or 0) <= MOST_REPLICAS:
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
            yield f"{where}: {key} is no key of a service{_did_you_mean(key, allowed)}"
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


def instance_memory(client: Any, instance_type: str) -> int:
    """Ask EC2 how much memory an instance type has.

    Args:
        client: A boto3 EC2 client.
        instance_type: Such as ``t2.micro``.

    Returns:
        MiB.

    Raises:
        ValueError: The region does not know the type; the message says what is allowed.
        botocore.exceptions.ClientError: EC2 refuses the question for another reason.
    """
    try:
        answer = client.describe_instance_types(InstanceTypes=[instance_type])
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidInstanceType":
            raise
        family = [{"Name": "instance-type", "Values": ["t2.*"]}]
        found = client.describe_instance_types(Filters=family)["InstanceTypes"]
        known = sorted(one["InstanceType"] for one in found)
        raise ValueError(
            f"ec2_instance_type is {instance_type!r}: {client.meta.region_name} has no such type; "
            f"allowed are for example {', '.join(known)}"
        ) from error
    return int(answer["InstanceTypes"][0]["MemoryInfo"]["SizeInMiB"])


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


def ec2_problems(variables: Variables) -> Iterator[str]:
    """Check what only EC2 can tell.

    Args:
        variables: Values by name, already checked one by one.

    Yields:
        A sentence for each problem.
    """
    client = boto3.client("ec2", region_name=variables["ec2_region"])
    instance_type = variables["ec2_instance_type"]
    try:
        yield from too_much_memory(variables, f"a {instance_type}", instance_memory(client, instance_type))
    except ValueError as error:
        yield str(error)
    except (BotoCoreError, ClientError) as error:
        yield f"EC2 in {variables['ec2_region']} does not answer as it should: {error}"


def local_problems(variables: Variables) -> Iterator[str]:
    """Check this machine.

    Args:
        variables: Values by name, already checked one by one.

    Yields:
        A sentence for each problem.
    """
    machine_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    yield from too_much_memory(variables, "this machine", machine_mib)
    address, port = variables["stack_address"], int(variables["stack_port"])
    if port_taken(address, port, variables["stack_name"]):
        yield f"stack_port is {port}: something else listens on {address}:{port}; allowed is a free port"


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"project", "scale"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the variables that the task sees.

        Args:
            tmp: Unused.
            task_vars: All variables.

        Returns:
            Ansible's result; failed with one message when there is a problem.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        project = Path(self._task.args["project"])
        problems = list(self._problems(project, task_vars or {}))
        listed = "\n".join(f"- {problem}" for problem in problems)
        return result | {
            "changed": False,
            "failed": bool(problems),
            "msg": f"Nothing was touched. To be mended first:\n{listed}" if problems else "The input is in order.",
        }

    def _problems(self, project: Path, task_vars: Variables) -> list[str]:
        options = known_variables(project / "roles")
        ours = {name for of_role in options.values() for name in of_role}
        variables = {name: self._templar.template(task_vars[name]) for name in ours & set(task_vars)}
        defaults = {name: option["default"] for name, option in options["stack"].items() if "default" in option}
        stack = defaults | variables
        if self._task.args.get("scale"):
            stack["stack_services"] = scaled(stack["stack_services"], task_vars)
        problems = [
            *misspelt(task_vars, options),
            *wrong_types(variables, options),
            *out_of_range(variables),
            *bad_services(stack["stack_services"], project, options["stack"]["stack_services"]),
        ]
        if problems:
            return problems
        in_cloud = "provisioner" in task_vars["group_names"]
        if not in_cloud:
            return list(local_problems(stack))
        missing = [name for name, option in options["ec2"].items() if option.get("required") and not stack.get(name)]
        if missing:
            return [f"{name} has no value; it is needed with this inventory" for name in missing]
        ec2 = {name: option.get("default") for name, option in options["ec2"].items()}
        return list(ec2_problems(ec2 | stack))
