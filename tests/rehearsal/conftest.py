"""Fixtures of the rehearsal's tests: its settings, and moto with our patches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.ec2.models.instance_types import InstanceTypeBackend

from rehearsal import docker, firewall
from rehearsal.instance import Machine
from rehearsal.patches import install
from rehearsal.pins import PINNED
from rehearsal.state import Settings, State
from tests.rehearsal.paper import KEY, PaperFleet


@pytest.fixture(autouse=True)
def _no_packet_filter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the fast tests away from this machine's packet filter."""
    if request.node.get_closest_marker("docker") is None:
        monkeypatch.setattr(firewall.Host, "attempt", lambda *_: docker.Outcome(0, "", ""))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Settings("trial", 7199, "10.99.0.0/16", "flask-fleet/instance:abc")


@pytest.fixture
def state(settings: Settings) -> State:
    return State.of(settings.name)


@pytest.fixture
def fleet(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[PaperFleet]:
    for owner, name, _ in PINNED:
        monkeypatch.setattr(owner, name, vars(owner)[name])  # restores the original at the end
    for method in ("add_address", "drop_address"):
        monkeypatch.setattr(Machine, method, lambda *_: None)
    for one in InstanceTypeBackend.instance_types:
        monkeypatch.setitem(one, "FreeTierEligible", one["FreeTierEligible"])
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "rehearsal")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "rehearsal")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    fleet = PaperFleet(settings)
    install(fleet)
    with mock_aws():
        yield fleet


@pytest.fixture
def ec2(fleet: PaperFleet) -> Any:
    client = boto3.client("ec2", region_name="eu-central-1")
    client.import_key_pair(KeyName="key", PublicKeyMaterial=KEY)
    assert fleet.machines == {}
    return client
