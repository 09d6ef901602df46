"""Checks secrets: each has a value, is encrypted, and is no placeholder. No message shows a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from plugins.lookup.project import servers

ENCRYPTED = b"$ANSIBLE_VAULT;"

VAULT_EXTENSIONS = {"", ".json", ".yaml", ".yml"}
"""Extensions of the files that Ansible reads variables from."""

SHORTEST_PASSWORD = 15
"""The fewest characters where nothing but the password protects: NIST SP 800-63B-4, section 3.1.1.2."""

SHORTEST_SECRET = 8
"""The fewest characters of a password beside another factor, by the same section. An app may be given a secret by
somebody else, so no more is asked for."""

POSIX_ZONE = re.compile(r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?\d")
"""Name and offset, which begin a time zone: https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html"""

FILE_NAME = r"[A-Za-z0-9][\w.-]{0,63}"

PLACEHOLDER = re.compile(
    r"^(?:please[\s_-]*)?(?:change|replace|fill|put|insert)[\s_-]*(?:it|me|this|in|here)(?![a-z])|^place[\s_-]?holder"
    r"|^your[\s_-][\w-]*(?:secret|password|key|token)|^<.*>$|^(?P<one>.)(?P=one)*$"
    r"|^(?:secret|password|passwort|letmein|example|12345678\d*)$",
    re.IGNORECASE,
)

AS_TEXT = "put quotes around it, or | string behind it in a template"

REFERENCE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
"""A variable in a template, or the path of something in a variable."""

KEPT_IN = "a file that ansible-vault encrypted keeps it: see docs/security.md"


def secret_problems(secrets: object) -> Iterator[str]:
    """Check the secrets of a service, and yield a sentence for each problem; a value that was not found is None."""
    if not isinstance(secrets, Mapping):
        yield "secrets is no mapping: allowed are names with their values"
        return
    for name, value in secrets.items():
        if not re.fullmatch(FILE_NAME, str(name), re.ASCII):
            yield (
                f"the secret {str(name)!r} names a file: allowed are letters, digits and the characters . _ - "
                "(a letter or digit first, at most 64)"
            )
        elif value is None or value == "":
            yield f"the secret {name} has no value: {KEPT_IN}"
        elif not isinstance(value, str):
            yield f"the secret {name} is no text: allowed is text, so put it into quotes"
        elif PLACEHOLDER.search(value.strip()):
            yield f"the secret {name} is still a placeholder: give it its own value, as from: openssl rand -hex 32"
        elif len(value) < SHORTEST_SECRET:
            yield f"the secret {name} has {len(value)} characters: allowed are {SHORTEST_SECRET} or more"


def readable_secrets(
    services: object, is_hidden: Callable[[object], bool], variable: str = "stack_services"
) -> Iterator[str]:
    """Find secrets whose values stand in the inventory itself, and yield a sentence for each.

    ``services``, or other entries with ``secrets``, are as they are written, before templates are filled in.
    ``is_hidden`` tells whether a value leads elsewhere or is encrypted.
    """
    for where, name, value in _written(services, variable):
        if value and not is_hidden(value):
            yield (
                f"{where}: the secret {name} can be read by whoever reads the inventory: "
                f"write a variable in its place; {KEPT_IN}"
            )


def _written(entries: object, variable: str) -> Iterator[tuple[str, str, object]]:
    """List the secrets of entries: whose each is, its name, and its value as it is written."""
    for position, entry in enumerate(entries if isinstance(entries, list) else []):
        secrets = entry.get("secrets") if isinstance(entry, Mapping) else None
        for name, value in secrets.items() if isinstance(secrets, Mapping) else ():
            yield f"{variable}[{position}] ({entry.get('name')})", name, value


def changed_secrets(
    entries: object, variables: Mapping[str, Any], is_template: Callable[[object], bool], variable: str
) -> Iterator[str]:
    """Find secrets that Ansible takes for templates by accident, and yield a sentence for each.

    Ansible would change such a value, or show a part of it in an error. Entries and variables are as they are written.
    """
    for where, name, written in _written(entries, variable):
        for source in REFERENCE.findall(str(written)) if is_template(written) else ():
            value = _found(variables, source.split("."))
            if is_template(value) and not _is_meant(str(value), variables):
                yield (
                    f"{where}: the secret {name} comes from {source}, which "
                    "has {{, {% or {# in it, so that Ansible would change it: write !unsafe before the value of "
                    f"{source}, or put a secret together where {variable} names it"
                )


def _is_meant(template: str, variables: Mapping[str, Any]) -> bool:
    """Tell whether somebody meant a template: all its expressions have variables or lookups, or it has a raw block."""
    if re.search(r"\{%-?\s*raw\b", template):
        return True
    expressions = re.findall(r"\{\{(.*?)\}\}", template, re.DOTALL)
    known = {*variables, "lookup", "query", "q"}
    is_all_known = all(known & {*re.findall(r"[A-Za-z_]\w*", one)} for one in expressions)
    return bool(expressions) and is_all_known and not re.search(r"\{[%#]", template)


def _found(variables: object, path: Iterable[str]) -> object:
    for name in path:
        variables = variables.get(name) if isinstance(variables, Mapping) else None
    return variables


def readable_vaults(inventory: Path) -> Iterator[str]:
    """Yield a sentence for each file of an inventory that is named as if it were encrypted but is not."""
    for folder in ("group_vars", "host_vars"):
        for path in sorted((inventory / folder).rglob("*")):
            is_read = path.suffix in VAULT_EXTENSIONS and path.is_file()
            if is_read and "vault" in path.name.lower() and not path.read_bytes().startswith(ENCRYPTED):
                yield f"{path} is not encrypted: ansible-vault encrypt {path}"


def weak_passwords(passwords: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """Yield a sentence for each vault whose password is too short: who has it can try as many as they like."""
    for name, password in passwords:
        text = password.decode(errors="replace").strip()
        if len(text) < SHORTEST_PASSWORD:
            yield (
                f"the vault password ({name}) has {len(text)} characters: allowed are {SHORTEST_PASSWORD} or more; "
                "a longer one comes with: ansible-vault rekey"
            )


def environment_problems(environment: object, reserved: Iterable[str]) -> Iterator[str]:
    """Check the environment of a service, and yield a sentence for each problem; the stack sets ``reserved`` itself."""
    if not isinstance(environment, Mapping):
        yield "environment is no mapping: allowed are names with their values"
        return
    taken: Mapping[str, Any] = dict.fromkeys(reserved)
    refused = {
        name: refusal for one in servers().values() for name, refusal in one.get("refused_environment", {}).items()
    }
    for name, value in environment.items():
        if not isinstance(name, str):
            yield f"environment has the name {name!r}, which is no text: put quotes around it"
        elif not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            yield f"environment has {name!r}: allowed are letters, digits and _, no digit first"
        elif name in taken:
            yield f"environment has {name}, which the stack sets itself; so it does {', '.join(sorted(taken))}"
        elif not isinstance(value, str):
            # YAML 1.1 reads 22:30 as 1350 and 0644 as 420: what was written cannot be known any more.
            yield f"environment has {name} with {value!r}, which is no text: {AS_TEXT}"
        elif name in refused and re.search(refused[name]["pattern"], value):
            yield (
                f"environment has {name} with {value!r}, and nginx would not find the server: "
                f"allowed are {refused[name]['allowed']}"
            )
        elif "\0" in value:
            yield f"environment has {name} with a NUL character: allowed is any other text"
        elif name == "TZ" and not (POSIX_ZONE.match(value) or value in available_timezones()):
            # The C library takes any other value for UTC, and says nothing.
            yield f"environment has TZ with {value!r}: allowed is the name of a time zone, such as Europe/Berlin"
