"""Checks that every request goes to one service, and to one only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plugins.filter.routes import DEFAULTS, by_host, completed, prefix
from preflight.web import is_host

PATH = "a path that begins with /, of letters, digits and the characters . _ ~ - /, without //"


def bad_routes(services: object, host_names: object) -> Iterator[str]:
    """Check which requests the services are for, one by one and together; yield a sentence for each problem."""
    if not isinstance(services, list) or not all(isinstance(entry, dict) for entry in services):
        # A value of another type is reported elsewhere.
        return
    names = [str(name) for name in host_names] if isinstance(host_names, list) else []
    problems = []
    for position, service in enumerate(services):
        where = f"stack_services[{position}] ({service.get('name')})"
        problems += [f"{where}: {problem}" for problem in _problems(service, names)]
    yield from problems or [*_taken_twice(services), *_without_root(services)]


def _problems(service: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    if not _is_path(service.get("path", DEFAULTS["path"])):
        yield f"path is {service['path']!r}: allowed is {PATH}"
    host = service.get("host", "")
    if host != "" and not (isinstance(host, str) and is_host(host)):
        yield f"host is {host!r}: allowed is a host name in small letters that is one of stack_host_names"
    elif host and host not in names:
        which = f"which are {', '.join(names)}" if names else "which is empty"
        yield f"host is {host!r}: allowed is one of stack_host_names, {which}"
    if "static" in service:
        yield from _static_problems(service["static"])


def _static_problems(static: object) -> Iterator[str]:
    if not isinstance(static, Mapping) or set(static) != {"path", "folder"}:
        yield f"static is {static!r}: allowed is a mapping such as {{path: /static/, folder: hello/static}}"
        return
    if not _is_path(static["path"]) or not prefix(static["path"]):
        yield f"static.path is {static['path']!r}: allowed is {PATH}, but not / itself"
    folder = static["folder"] if isinstance(static["folder"], str) else ""
    if not re.fullmatch(r"[\w][\w./-]*", folder, re.ASCII) or ".." in folder.split("/"):
        yield (
            f"static.folder is {static['folder']!r}: allowed is a folder in the image, relative to its working "
            "directory, of letters, digits and the characters . _ - /"
        )


def _is_path(path: object) -> bool:
    # nginx takes two slashes for one, and would never find such a path.
    return bool(re.fullmatch(r"(?:/(?!/)[\w.~-]*)+", str(path), re.ASCII))


def _taken_twice(services: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Find two services, or a service and static files, that are for the same requests."""
    owners: dict[tuple[str, str], str] = {}
    for service in completed(services, 0):
        paths = [(service["path"], str(service.get("name")))]
        if "static" in service:
            paths.append((service["static"]["path"], f"the static files of {service.get('name')}"))
        for path, who in paths:
            key = (str(service["host"]), prefix(path))
            if key in owners:
                of_host = f" of {key[0]}" if key[0] else ""
                yield f"stack_services: {owners[key]} and {who} both have the path {key[1] or '/'}{of_host}"
            owners.setdefault(key, who)


def _without_root(services: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Find hosts without a service for the path /, where some requests would find nobody."""
    for host, group in by_host(completed(services, 0)).items():
        if any(not prefix(service["path"]) for service in group):
            continue
        if host:
            who = ", ".join(f"{service.get('name')} ({service['path']})" for service in group)
            yield f"stack_services: for the host {host} there is {who}, but no service with the path /"
        else:
            yield "stack_services: no service without a host has the path /"
