"""Fixtures of all scenarios."""

from __future__ import annotations

import os

import pytest
from testinfra.host import Host

from preflight import receipts
from tests.live_stack import Stack
from tests.project import ROOT, load_mapping

INVENTORY = ROOT / "inventories/aws"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave a receipt of a scenario whose tests all passed.

    Args:
        session: The session of pytest.
        exitstatus: Its exit code.
    """
    scenario = os.environ.get("MOLECULE_SCENARIO_NAME")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = receipts.complete(reporter.stats) if reporter and exitstatus == 0 else 0
    if scenario and passed:
        services = load_mapping(INVENTORY / "group_vars/all/services.yml")["stack_services"]
        digest = receipts.fingerprint(ROOT, INVENTORY, [service["context"] for service in services])
        print(f"\nreceipt: {receipts.write(scenario, passed, digest)}")


@pytest.fixture
def stack(host: Host) -> Stack:
    """Give the stack on the host under test.

    Args:
        host: The instance.

    Returns:
        Its stack.
    """
    return Stack(host)
