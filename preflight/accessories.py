"""Checks accessory_services, and what becomes of their data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from plugins.filter.service_secrets import password_name
from plugins.filter.sizes import memory_mib
from plugins.lookup.project import databases
from preflight.secrets import secret_problems
from preflight.variables import Variables, did_you_mean

ONE_LINE = re.compile(r"[!-~]+")
"""A password that every program reads alike: initdb takes the first line only, and addresses have no blanks."""

RESERVED = {"localhost", "nginx"}
"""Names that already mean another host inside a container."""


def _accessory_problems(accessory: Mapping[str, Any]) -> Iterator[str]:
    kind, memory, password = (accessory.get(key) for key in ("kind", "memory", "password"))
    known = databases().get(str(kind))
    if known is None:
        yield f"kind is {kind!r}: allowed is {' or '.join(databases())}"
    elif (memory_mib(memory) or 0) < known["least_memory_mib"]:
        yield f"memory is {memory!r}: allowed is a size such as 256m or 1g, at least {known['least_memory_mib']}m"
    problems = list(secret_problems({"password": password}))
    yield from problems
    if not problems and not ONE_LINE.fullmatch(str(password)):
        yield (
            "the secret password has a character that not every program reads alike: allowed are ASCII letters, "
            "digits and punctuation, no blanks and line breaks"
        )


def bad_accessories(accessories: object, services: object, option: Mapping[str, Any]) -> Iterator[str]:
    """Check accessory_services, entry by entry and together with the services; yield a sentence for each problem.

    No sentence has a password in it. A password that could not be found is None, ``services`` may be wrong, and
    ``option`` is the argument spec of ``accessory_services``.
    """
    if not isinstance(accessories, list) or not all(isinstance(entry, Mapping) for entry in accessories):
        yield "accessory_services has to be a list of accessories; [] for none"
        return
    allowed = option["options"]
    served = [entry for entry in services if isinstance(entry, Mapping)] if isinstance(services, list) else []
    taken = {str(service.get("name")) for service in served}
    for position, accessory in enumerate(accessories):
        name = str(accessory.get("name"))
        where = f"accessory_services[{position}] ({name})"
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?", name) or name in RESERVED:
            yield (
                f"{where}: name is {name!r}: allowed are small letters, digits and hyphens, at most 31, "
                f"a letter first, no hyphen last, but not {', '.join(sorted(RESERVED))}"
            )
        elif name in taken:
            yield f"{where}: a service has the name {name} too: choose another one, because both are reached by it"
        for key in sorted(set(accessory) - set(allowed)):
            yield f"{where}: {key} is no key of an accessory{did_you_mean(key, allowed)}"
        for problem in _accessory_problems(accessory):
            yield f"{where}: {problem}"
    names = [str(accessory.get("name")) for accessory in accessories]
    for twice in sorted({name for name in names if names.count(name) > 1}):
        yield f"accessory_services: two accessories have the name {twice}"
    for position, service in enumerate(served):
        for problem in _use_problems(service, names):
            yield f"stack_services[{position}] ({service.get('name')}): {problem}"


def _use_problems(service: Mapping[str, Any], names: list[str]) -> Iterator[str]:
    used, secrets = service.get("accessories", []), service.get("secrets", {})
    listed = [str(name) for name in used] if isinstance(used, list) else []
    for twice in sorted({name for name in listed if listed.count(name) > 1}):
        yield f"accessories has {twice!r} twice: allowed is once"
    for name in listed:
        secret = password_name(name)
        if name not in names:
            known = ", ".join(names) or "none"
            yield (
                f"accessories has {name!r}, which accessory_services does not describe: allowed are those that it "
                f"does ({known}){did_you_mean(name, names)}"
            )
        elif isinstance(secrets, Mapping) and secret in secrets:
            yield f"secrets has {secret}, which is the password of the accessory {name}: choose another name"


def scattered_data(variables: Variables) -> Iterator[str]:
    """Yield a sentence when there are databases and several instances, each of which would have its own data."""
    count, accessories = int(variables["ec2_count"]), variables["accessory_services"]
    if count > 1 and accessories:
        names = ", ".join(str(one["name"]) for one in accessories)
        yield (
            f"ec2_count is {count}: each instance would have its own {names} (accessory_services), and visitors would "
            "see other data on each: allowed is 1, or a database elsewhere"
        )
