"""Faults that the rehearsal makes on request."""

from typing import Any

import pytest

from rehearsal import cli, daemon
from rehearsal.errors import RehearsalError
from rehearsal.faults import Fault, Faults, fault_from


def test_faults_happen_as_often_as_asked_for_and_in_order() -> None:
    faults = Faults()
    faults.add(Fault("throttle", count=2))
    faults.add(Fault("throttle", action="Run*"))
    assert [faults.throttles("ec2:RunInstances") for _ in range(4)] == [True, True, True, False]


def test_error_waits_for_its_turn_among_the_calls_that_it_means() -> None:
    faults = Faults()
    faults.add(Fault("error", action="RunInstances", code="VcpuLimitExceeded", words="No.", nth=2))
    calls = ["ec2:RunInstances", "ec2:DescribeInstances", "iam:RunInstances", "ec2:RunInstances", "ec2:RunInstances"]
    found = [faults.refusal(call) for call in calls]
    assert [one and (one.code, one.words) for one in found] == [None] * 3 + [("VcpuLimitExceeded", "No."), None]


def test_faults_are_listed_and_cleared_by_number() -> None:
    faults = Faults()
    for kind in ("boot", "capacity", "slow"):
        faults.add(Fault(kind))
    lines = ["1  boot x1", "2  capacity x1  type=any zone=any", "3  slow x1  state=pending seconds=10"]
    assert faults.lines() == lines
    assert (faults.clear([2]), faults.clear(), faults.lines()) == (1, 2, [])


def test_faults_survive_a_restart() -> None:
    faults, again = Faults(), Faults()
    faults.add(Fault("capacity", count=3, type="t2.micro"))
    again.restore(faults.kept())
    assert again.lines() == ["1  capacity x3  type=t2.micro zone=any"]


@pytest.mark.parametrize(
    "values",
    [{"kind": "fire"}, *({"kind": "boot"} | one for one in ({"count": 0}, {"nth": 0}, {"state": "running"}, {"x": 1}))],
)
def test_nonsense_is_refused(values: dict[str, Any]) -> None:
    """A fault that never happens would make a test pass for nothing."""
    with pytest.raises(RehearsalError):
        fault_from(values)


def test_command_line_sends_only_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []

    def answer(_name: str, method: str, body: Any = None) -> dict[str, Any]:
        sent.append((method, body))
        return {"added": "1  throttle x3", "cleared": 1, "faults": []}

    monkeypatch.setattr(daemon, "faults", answer)
    assert cli.main(["fault", "add", "throttle", "--count", "3", "--action", "Run*"]) == 0
    assert cli.main(["fault", "clear", "1"]) == 0
    assert cli.main(["fault", "list"]) == 0
    assert sent == [("POST", {"kind": "throttle", "count": 3, "action": "Run*"}), ("DELETE", [1]), ("GET", None)]
    assert capsys.readouterr().out == "added fault 1  throttle x3\ncleared 1 faults\nno faults\n"
