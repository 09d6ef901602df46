"""Checks the names, types and ranges of variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean

Variables = Mapping[str, Any]
"""Values of variables, by name."""

TYPES = {
    "bool": "true or false",
    "dict": "a mapping of names to values",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "path": "a path",
    "raw": "anything",
    "str": "text",
}
"""What the types of argument specs are called in messages."""

WHOLE_NUMBERS = {
    "accessory_start_seconds": (5, 1800),
    # Mozilla's guideline 6.0, intermediate: 366 at most.
    "certificate_days": (1, 366),
    "ec2_count": (1, 20),
    "ec2_volume_size": (8, 16384),
    "host_boot_seconds": (10, 3600),
    "host_journal_mib": (16, 65536),
    "host_swap_mib": (0, 16384),
    "stack_body_bytes": (1024, 2**31 - 1),
    "stack_client_seconds": (1, 600),
    "stack_connections_per_address": (0, 65535),
    "stack_drain_seconds": (1, 300),
    "stack_hang_seconds": (0, 3600),
    "stack_hsts_seconds": (0, 63072000),
    "stack_https_port": (1, 65535),
    "stack_port": (1, 65535),
    "stack_pre_deploy_seconds": (1, 86400),
    "stack_keep_releases": (1, 100),
    "stack_requests_per_address": (0, 1000000),
    "stack_requests_per_replica": (1, 1000),
    "stack_retry_seconds": (0, 30),
    "stack_start_seconds": (5, 1800),
    "stack_stop_seconds": (1, 600),
    "stack_surge": (1, 50),
}
"""Smallest and largest value that makes sense for a number of ours; sizes in GiB, MiB or bytes, times in seconds."""

NAMES = {
    # Compose makes small letters of it and drops the rest: https://docs.docker.com/compose/how-tos/project-name/
    "stack_name": (
        r"[a-z0-9][a-z0-9_-]{0,62}",
        "are small letters, digits, - and _, at most 63, a letter or digit first",
    ),
    # Ansible would start a relative one from the folder of the playbook, and a volume cannot have a colon in it.
    "stack_directory": (r"/[^:\n]*[^:\n/]", "is an absolute path without : that does not end in /"),
    # It is part of a role's name: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    "ec2_project": (r"[A-Za-z0-9][\w.-]{0,39}", "are letters, digits, . _ and -, at most 40, a letter or digit first"),
}
"""Variables that are a name or a path: a pattern, and what it allows in words."""

TIMES_OF_DAY = {"host_reboot_time"}
"""Variables that are a time of day, or empty."""


def known_variables(roles: Path) -> dict[str, dict[str, Any]]:
    """Read from the folder of the roles the options of each role's main entry point, by the role's name."""
    return {
        path.parent.parent.name: yaml_load(path.read_text())["argument_specs"]["main"]["options"]
        for path in sorted(roles.glob("*/meta/argument_specs.yml"))
    }


def stack_defaults(options: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Give the defaults of the roles that make the stack, from what ``known_variables`` gives."""
    served = options["stack"] | options["certificate"] | options["accessory"]
    return {name: option["default"] for name, option in served.items() if "default" in option}


def verdict(problems: Collection[str], otherwise: str) -> dict[str, Any]:
    """Give the result of a task that refuses what has problems, in one message for all of them."""
    listed = "\n".join(f"- {problem}" for problem in problems)
    said = f"Nothing was touched. To be mended first:\n{listed}" if problems else otherwise
    return {"changed": False, "failed": bool(problems), "msg": said}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest what a misspelt word may have been, as the end of a sentence; empty when nothing is close."""
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def misspelt(names: Iterable[str], options: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each name that looks like one of the ``known_variables`` but is none."""
    known = {name for of_role in options.values() for name in of_role}
    prefixes = tuple(f"{role}_" for role in options)
    for name in sorted(set(names) - known):
        looks_like_ours = not name.startswith("_") and get_close_matches(name, known, n=1, cutoff=0.9)
        if name.startswith(prefixes) or looks_like_ours:
            yield f"{name} is no variable of this project{did_you_mean(name, known)}"


def wrong_types(variables: Variables, options: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Check every variable that is set against its role's argument spec; yield a sentence for each problem."""
    # Numbers, services and accessories have checks of their own, which say more, and show no secret.
    elsewhere = {*WHOLE_NUMBERS, "accessory_services", "stack_services"}
    for of_role in options.values():
        for name in sorted((of_role.keys() & variables.keys()) - elsewhere):
            validator = ArgumentSpecValidator({name: of_role[name]})
            if validator.validate({name: variables[name]}).error_messages:
                yield f"{name} is {variables[name]!r}: allowed is {_described(of_role[name])}"


def _described(option: Mapping[str, Any]) -> str:
    """Say in words what an argument spec allows."""
    if "choices" in option:
        return " or ".join(str(choice) or '""' for choice in option["choices"])
    if option["type"] == "list":
        return f"a list, each entry {TYPES[option['elements']]}"
    return TYPES[option["type"]]


def is_true(value: object) -> bool:
    """Read a truth value of the right type as Ansible does, since -e gives it as text; None means no."""
    return bool(boolean(value, strict=False))


def whole_number(value: object) -> int | None:
    """Read a whole number, which -e gives as text; None when the value is none."""
    text = str(value)
    return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else None


def out_of_range(variables: Variables) -> Iterator[str]:
    """Yield a sentence for each number that is no whole number or out of its range."""
    for name, (smallest, largest) in WHOLE_NUMBERS.items():
        if name not in variables:
            continue
        number = whole_number(variables[name])
        if number is None or not smallest <= number <= largest:
            yield f"{name} is {variables[name]!r}: allowed is a whole number from {smallest} to {largest}"


def bad_times(variables: Variables) -> Iterator[str]:
    """Yield a sentence for each wrong time of day, which YAML takes for a number when it is not quoted."""
    for name in sorted(TIMES_OF_DAY & variables.keys()):
        if variables[name] != "" and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", str(variables[name]), re.ASCII):
            yield f'{name} is {variables[name]!r}: allowed is a time of day in quotes, such as "04:00", or ""'


def bad_names(variables: Variables) -> Iterator[str]:
    """Yield a sentence for each name or path that Docker, Ansible or AWS would change or refuse."""
    for name in sorted(NAMES.keys() & variables.keys()):
        pattern, allowed = NAMES[name]
        if not re.fullmatch(pattern, str(variables[name]), re.ASCII):
            yield f"{name} is {variables[name]!r}: allowed {allowed}"
