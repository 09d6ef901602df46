"""Fixtures of all scenarios."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from testinfra.host import Host

from bench.app import copy_app
from bench.ec2 import client
from bench.stack import Stack, over_ssh
from preflight import receipts
from tests.project import ROOT


def _made() -> float:
    """Tell when the first of the running instances was launched; 0 when there is none."""
    ec2 = client("ec2")
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    groups = ec2.describe_instances(Filters=running)["Reservations"]
    return min((one["LaunchTime"].timestamp() for group in groups for one in group["Instances"]), default=0.0)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave a receipt when all tests of the proving scenario passed."""
    scenario = os.environ.get("MOLECULE_SCENARIO_NAME")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = receipts.complete(reporter.stats) if reporter and exitstatus == 0 else 0
    if scenario != receipts.PROVING or not passed:
        return
    if receipts.last_change(ROOT) > _made():
        print("\nno receipt: code was changed after the instances were made, or there are none")
        return
    told = f"scenario {scenario}, {passed} tests"
    print(f"\nreceipt: {receipts.write(receipts.folder() / f'{scenario}.json', told, receipts.code_of(ROOT))}")


@pytest.fixture(scope="module")
def host(host: Host) -> Host:
    """Reach the host under test over SSH alone, and no longer through Ansible."""
    return over_ssh(host)


@pytest.fixture(scope="module")
def stack(host: Host) -> Stack:
    """Return the stack on the host under test."""
    return Stack(host)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Copy the sample app, so that a test can change it."""
    return copy_app(tmp_path)
