"""Which requests go to which service."""

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
"""What a service is that does not say otherwise; no host means any."""


def prefix(path: object) -> str:
    """Write a path so that equal ones look equal.

    Args:
        path: What requests begin with, such as ``/api`` or ``/api/``.

    Returns:
        It without slashes at its end; empty for ``/``.
    """
    return str(path).rstrip("/")


def completed(services: Iterable[Service], body_bytes: int) -> list[dict[str, Any]]:
    """Fill in what services leave out, but for what the machine's size decides.

    Args:
        services: Value of ``stack_services``.
        body_bytes: Value of ``stack_body_bytes``.

    Returns:
        The services.
    """
    return [{**DEFAULTS, "body_bytes": body_bytes, **service} for service in services]


def by_host(services: Iterable[Service]) -> dict[str, list[Service]]:
    """Group services by the host that they are for.

    Args:
        services: As ``completed`` gives them.

    Returns:
        Services by host, those for any other host first, under an empty name.
    """
    known = list(services)
    hosts = sorted({"", *(str(service["host"]) for service in known)})
    return {host: [service for service in known if str(service["host"]) == host] for host in hosts}


def root_service(services: Iterable[Service], host: str) -> Service:
    """Find the service that answers at ``/``.

    Args:
        services: As ``completed`` gives them.
        host: The host that is asked for; empty for any.

    Returns:
        The service. Preflight refuses services without one.
    """
    groups = by_host(services)
    return next(service for service in groups.get(host, groups[""]) if not prefix(service["path"]))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters.

        Returns:
            The functions by their names.
        """
        return {
            "by_host": by_host,
            "completed": completed,
            "root_service": root_service,
            "url_prefix": prefix,
        }
