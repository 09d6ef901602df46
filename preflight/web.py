"""Checks the settings of nginx: its names, its address, its Content-Security-Policy and its room for bodies."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from ipaddress import IPv4Address

from plugins.filter.sizes import memory_mib
from preflight.variables import Variables

LONGEST_NAME = 253
"""RFC 1035 allows 255 octets on the wire, which is two less as text."""

LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"


def bad_host_names(variables: Variables) -> Iterator[str]:
    """Check the names that nginx answers to, and yield a sentence for each problem."""
    names = variables.get("stack_host_names", [])
    if isinstance(names, str):
        yield f"""stack_host_names is {names!r}: allowed is a list, such as -e '{{"stack_host_names": ["{names}"]}}'"""
        return
    for position, name in enumerate(names):
        text = str(name)
        if not is_host(text):
            yield (
                f"stack_host_names[{position}] is {text!r}: allowed is a host name in small letters, such as "
                "www.example.com, an international one in its xn-- form, or an IPv4 address; no port or *"
            )
    for twice in sorted({str(name) for name in names if names.count(name) > 1}):
        yield f"stack_host_names: {twice} is there twice"


def is_host(text: str) -> bool:
    """Tell whether a text is a host name in small letters or an IPv4 address, as nginx.conf needs it."""
    if text.rpartition(".")[2].isdigit():
        try:
            IPv4Address(text)
        except ValueError:
            return False
        return True
    return len(text) <= LONGEST_NAME and bool(re.fullmatch(rf"{LABEL}(\.{LABEL})*", text, re.ASCII))


def bad_address(variables: Variables) -> Iterator[str]:
    """Yield a sentence when nginx is published on no IPv4 address: only there it can be replaced without a gap."""
    address = variables.get("stack_address", "0.0.0.0")  # noqa: S104 (every address is the default)
    try:
        IPv4Address(str(address))
    except ValueError:
        yield f"stack_address is {address!r}: allowed is an IPv4 address of the machine, or 0.0.0.0 for all of them"


def bad_policy(variables: Variables) -> Iterator[str]:
    """Yield a sentence when the Content-Security-Policy cannot be a quoted string of nginx.conf."""
    policy = str(variables.get("stack_content_security_policy", ""))
    if not re.fullmatch(r"[ !#%-\[\]-~]*", policy, re.ASCII):
        yield (f'stack_content_security_policy is {policy!r}: allowed is one line of ASCII without ", $ and \\')


def body_without_room(variables: Variables) -> Iterator[str]:
    """Yield a sentence for each largest body that nginx has no room for, not even alone.

    A body is kept until the client has sent all of it, where a quarter of nginx's memory is the limit.
    """
    memory = variables["stack_nginx_memory"]
    mib = memory_mib(memory)
    # A size that cannot be read is reported elsewhere.
    room = math.inf if mib is None else mib / 4 * 2**20
    largest = {"stack_body_bytes": variables["stack_body_bytes"]}
    for position, service in enumerate(variables["stack_services"]):
        if "body_bytes" in service:
            largest[f"stack_services[{position}] ({service['name']}): body_bytes"] = service["body_bytes"]
    for what, size in largest.items():
        if int(size) > room:
            yield (
                f"{what} is {size}, but nginx has room for {room:.0f}, a quarter of its "
                f"stack_nginx_memory of {memory}: allowed is less, or more memory for nginx"
            )
