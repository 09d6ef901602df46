"""Ansible filters: where services are reached: their paths and hosts, and whether over HTTPS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Service = Mapping[str, Any]

DEFAULTS: dict[str, Any] = {
    "app": "wsgi:app",
    "host": "",
    "path": "/",
    "port": 5000,
    "publish": False,
    "server": "gunicorn",
    "streaming": False,
    "timeout_seconds": 30,
}
"""Values of a service that does not give its own; an empty host means any."""


def prefix(path: object) -> str:
    """Write a path without slashes at its end, so that equal ones look equal; ``/`` becomes empty."""
    return str(path).rstrip("/")


def completed(services: Iterable[Service], body_bytes: int) -> list[dict[str, Any]]:
    """Fill in what services leave out, but for what the machine's size decides."""
    return [{**DEFAULTS, "body_bytes": body_bytes, **service} for service in services]


def by_host(services: Iterable[Service]) -> dict[str, list[Service]]:
    """Group completed services by their host; those for any other host come first, under an empty name."""
    known = list(services)
    hosts = sorted({"", *(str(service["host"]) for service in known)})
    return {host: [service for service in known if str(service["host"]) == host] for host in hosts}


def root_service(services: Iterable[Service], host: str) -> Service:
    """Find the completed service that answers at ``/`` of a host, or of any; preflight refuses services without one."""
    groups = by_host(services)
    return next(service for service in groups.get(host, groups[""]) if not prefix(service["path"]))


def serves_https(certificate_mode: str) -> bool:
    """Tell whether a stack with this ``certificate_mode`` serves HTTPS."""
    return certificate_mode != "none"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {
            "by_host": by_host,
            "completed": completed,
            "root_service": root_service,
            "serves_https": serves_https,
            "url_prefix": prefix,
        }
