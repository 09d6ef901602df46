"""Each kind of nginx.conf that the template can give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.project import ROOT
from bench.render import Renderer, machine

APP = {"name": "app", "path": "/"}
API = {"name": "api-2", "path": "/api/"}
LIVE = {"name": "live", "path": "/live", "port": 5001, "server": "granian", "streaming": True, "timeout_seconds": 120}
SHOP = {"name": "shop", "host": "example.test", "server": "uwsgi", "body_bytes": 20971520, "streaming": True}
STATIC = {"path": "/static/", "folder": "hello/static"}
SEVERAL: list[dict[str, Any]] = [APP | {"static": STATIC}, API | {"server": "uwsgi"}, LIVE, SHOP]
"""A service of each kind: static files, uwsgi, streaming, and a host of its own."""

TLS = {
    "certificate_mode": "acme",
    "stack_host_names": ["www.example.test", "example.test"],
    "inventory_hostname": "i-0",
    "ansible_host": "192.0.2.7",
}

KINDS: Mapping[str, Mapping[str, Any]] = {
    "one service": {"stack_services": [APP]},
    "several services": {"stack_services": SEVERAL, "stack_host_names": TLS["stack_host_names"]},
    "names": {"stack_services": [APP], "stack_host_names": TLS["stack_host_names"]},
    "acme": {"stack_services": SEVERAL, **TLS},
    "self-signed": {"stack_services": [APP], **TLS, "certificate_mode": "self_signed"},
}
"""Variables by the name of the kind; whoever adds a kind to the template adds it here."""


def rendered() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each kind."""
    render = Renderer(ROOT / "roles")
    for name, variables in KINDS.items():
        given = {"inventory_hostname": "i-0", **variables}
        yield name, render("stack", "nginx/nginx.conf.j2", __stack_machine=machine(), **given)
