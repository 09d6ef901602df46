"""The services of the scenario `services`, each as clients outside find it."""

from __future__ import annotations

from typing import Any

from bench.stack import Stack
from tests.project import ROOT, load_mapping

SCENARIO = ROOT / "molecule/services"
PROBE = SCENARIO / "probe"
VARIABLES = load_mapping(SCENARIO / "vars/inventory.yml")
SERVICES: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in VARIABLES["stack_services"]}
PROBES = [name for name, entry in SERVICES.items() if (ROOT / entry["context"]) == PROBE]
"""Those that can be asked for what `molecule/services/probe` does."""


def find(stack: Stack, name: str) -> Stack:
    """Return the stack so that requests go to a service, at the name and path of its entry."""
    entry = SERVICES[name]
    return stack.at(entry.get("host", VARIABLES["stack_host_names"][0]), entry.get("path", "/").rstrip("/"))


def changed(**entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a value of ``stack_services`` in which the named services have other values."""
    return [entry | entries.get(name, {}) for name, entry in SERVICES.items()]
