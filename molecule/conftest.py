"""Fixtures of all scenarios."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from testinfra.host import Host

from preflight import receipts
from tests.live_app import copy_app
from tests.live_fleet import INVENTORY, client
from tests.live_stack import Stack, over_ssh
from tests.project import ROOT, load_mapping


def _made() -> float:
    """Tell when the first of the running instances was launched; 0 when there is none."""
    ec2 = client("ec2")
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    groups = ec2.describe_instances(Filters=running)["Reservations"]
    return min((one["LaunchTime"].timestamp() for group in groups for one in group["Instances"]), default=0.0)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave a receipt of a scenario whose tests all passed.

    Args:
        session: The session of pytest.
        exitstatus: Its exit code.
    """
    scenario = os.environ.get("MOLECULE_SCENARIO_NAME")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = receipts.complete(reporter.stats) if reporter and exitstatus == 0 else 0
    if not scenario or not passed:
        return
    services = load_mapping(INVENTORY / "group_vars/all/services.yml")["stack_services"]
    covered = ROOT, INVENTORY, [service["context"] for service in services]
    if receipts.last_change(*covered) > _made():
        print("\nno receipt: something was changed after the instances were made, or there are none")
        return
    print(f"\nreceipt: {receipts.write(scenario, passed, receipts.fingerprint(*covered))}")


@pytest.fixture(scope="module")
def host(host: Host) -> Host:
    """Reach the host under test over SSH alone.

    Args:
        host: The instance, reached through Ansible.

    Returns:
        The same instance.
    """
    return over_ssh(host)


@pytest.fixture(scope="module")
def stack(host: Host) -> Stack:
    """Give the stack on the host under test.

    Args:
        host: The instance.

    Returns:
        Its stack.
    """
    return Stack(host)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Copy the sample app, to be changed.

    Args:
        tmp_path: Where to.

    Returns:
        The copy.
    """
    return copy_app(tmp_path)
