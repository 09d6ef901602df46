"""The services of the scenario `services`, each as people outside find it."""

from __future__ import annotations

from typing import Any

from tests.live_stack import Stack
from tests.project import ROOT, load_mapping

SCENARIO = ROOT / "molecule/services"
PROBE = SCENARIO / "probe"
VARIABLES = load_mapping(SCENARIO / "vars/inventory.yml")
SERVICES: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in VARIABLES["stack_services"]}
PROBES = [name for name, entry in SERVICES.items() if (ROOT / entry["context"]) == PROBE]
"""Those that can be asked for what `molecule/services/probe` does."""


def find(stack: Stack, name: str) -> Stack:
    """Ask a service, where its entry puts it.

    Args:
        stack: The stack.
        name: Name of the service.

    Returns:
        The stack, asked for that service.
    """
    entry = SERVICES[name]
    return stack.at(entry.get("host", VARIABLES["stack_host_names"][0]), entry.get("path", "/").rstrip("/"))


def changed(**entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the services down with other values.

    Args:
        **entries: What is other, by name of the service.

    Returns:
        A value of ``stack_services``.
    """
    return [entry | entries.get(name, {}) for name, entry in SERVICES.items()]
