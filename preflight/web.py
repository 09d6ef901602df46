"""What nginx is told of the world: names that it answers to, and what it hands to browsers."""

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
    """Check the names that nginx answers to.

    Args:
        variables: Values by name, of the right types.

    Yields:
        A sentence for each problem.
    """
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
    """Tell whether somebody can ask for this.

    Args:
        text: A host name or an address.

    Returns:
        Whether it is one, as nginx.conf needs it.
    """
    if text.rpartition(".")[2].isdigit():
        try:
            IPv4Address(text)
        except ValueError:
            return False
        return True
    return len(text) <= LONGEST_NAME and bool(re.fullmatch(rf"{LABEL}(\.{LABEL})*", text, re.ASCII))


def bad_address(variables: Variables) -> Iterator[str]:
    """Check the address that nginx is published on: the replacement of nginx without a gap knows IPv4 alone.

    Yields:
        A sentence when it is no IPv4 address.
    """
    address = variables.get("stack_address", "0.0.0.0")  # noqa: S104 (every address is the default)
    try:
        IPv4Address(str(address))
    except ValueError:
        yield f"stack_address is {address!r}: allowed is an IPv4 address of the machine, or 0.0.0.0 for all of them"


def bad_policy(variables: Variables) -> Iterator[str]:
    r"""Check the Content-Security-Policy, which is written into a quoted string of nginx.conf.

    Args:
        variables: Values by name, of the right types.

    Yields:
        A sentence when it has a character that would end that string or mean something in it.
    """
    policy = str(variables.get("stack_content_security_policy", ""))
    if not re.fullmatch(r"[ !#%-\[\]-~]*", policy, re.ASCII):
        yield (f'stack_content_security_policy is {policy!r}: allowed is one line of ASCII without ", $ and \\')


def body_without_room(variables: Variables) -> Iterator[str]:
    """Compare the largest bodies with where nginx keeps one until the client has sent all of it.

    Args:
        variables: Values by name, already checked one by one.

    Yields:
        A sentence for each that has no room, not even alone.
    """
    memory = variables["stack_nginx_memory"]
    mib = memory_mib(memory)
    # One that cannot be read is named elsewhere.
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
