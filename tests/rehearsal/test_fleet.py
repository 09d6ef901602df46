"""Changes of instances happen in order, and calls wait for them."""

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from rehearsal import docker
from rehearsal.errors import RehearsalError
from rehearsal.faults import Fault
from rehearsal.fleet import HOLD, Fleet
from rehearsal.images import Disk
from rehearsal.instance import REBOOTED, Machine
from rehearsal.sizing import Size
from rehearsal.state import Settings, State


@dataclass
class FakeInstance:
    id: str = "i-1"
    state: str = ""
    size: Size = field(default_factory=lambda: Size(1, 1024))
    terminates_on_shutdown: bool = False
    seen: list[str] = field(default_factory=list)
    reason: str = ""
    gave_back: bool = False

    def reclaim(self) -> None:
        self.seen.append("reclaimed")

    def give_back(self) -> None:
        self.gave_back = True

    def become(self, state: str, code: str = "", reason: str = "") -> None:
        self.state = state
        self.reason = f"{code}: {reason}" if code else ""
        self.seen.append(state)


class FakeMachine(Machine):
    def __init__(self, settings: Settings, directory_name: str = "i-1") -> None:
        super().__init__(settings, State.of(settings.name).instance(directory_name), directory_name, "10.99.0.4", [])
        self.directory.mkdir(parents=True)
        self.done: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.there = True

    def exists(self) -> bool:
        return self.there

    def create(self, image: str, size: Size) -> None:
        self.done.append(f"create {image} {size.memory}")

    def resize(self, size: Size) -> None:
        self.done.append(f"resize {size.memory}")

    def start(self) -> None:
        self.done.append("start")

    def stop(self) -> None:
        self.done.append("stop")

    def destroy(self) -> None:
        self.done.append("destroy")

    def wait(self) -> None:
        """Wait until the test lets the machine boot."""
        self.gate.wait(5)
        if self.failure:
            raise self.failure


@pytest.fixture
def fleet(settings: Settings) -> Fleet:
    return Fleet(settings)


@pytest.fixture
def machine(settings: Settings) -> FakeMachine:
    return FakeMachine(settings)


@pytest.fixture
def running(fleet: Fleet, machine: FakeMachine) -> FakeInstance:
    instance = FakeInstance()
    fleet.launch(instance, machine)
    fleet.settle(["i-1"])
    machine.done.clear()
    return instance


def test_instance_is_pending_until_its_boot_ended(fleet: Fleet, machine: FakeMachine) -> None:
    """`running` must mean that SSH works."""
    instance = FakeInstance()
    machine.gate.clear()
    fleet.launch(instance, machine)
    # A client's read time-out is a minute.
    fleet.settle(["i-1", "i-unknown"], limit=0.05)
    assert instance.state == "pending"
    assert fleet.busy("i-1")
    machine.gate.set()
    fleet.settle(["i-1"])
    assert instance.seen == ["pending", "running"]
    assert machine.done == ["create flask-fleet/instance:abc 1024", "start"]


def test_failed_first_boot_terminates_with_the_reason(fleet: Fleet, machine: FakeMachine) -> None:
    """EC2 does so too, and boto3's waiters give up at once."""
    instance = FakeInstance()
    machine.failure = RehearsalError("the container ended with exit code 32")
    fleet.launch(instance, machine)
    fleet.settle(["i-1"])
    assert instance.state == "terminated"
    assert instance.reason == "Server.InternalError: the container ended with exit code 32"
    assert (machine.done[-1], instance.gave_back) == ("destroy", True)


def test_failed_later_boot_stops_and_keeps_the_data(fleet: Fleet, machine: FakeMachine, running: FakeInstance) -> None:
    fleet.stop(running)
    fleet.settle(["i-1"])
    machine.failure = RehearsalError("no memory")
    fleet.start(running)
    fleet.settle(["i-1"])
    assert (running.state, running.reason) == ("stopped", "Server.InternalError: no memory")
    assert "destroy" not in machine.done
    assert not running.gave_back


def test_start_applies_the_present_type(fleet: Fleet, machine: FakeMachine, running: FakeInstance) -> None:
    fleet.stop(running)
    running.size = Size(2, 4096)
    fleet.start(running)
    fleet.settle(["i-1"])
    assert machine.done == ["stop", "resize 4096", "start"]
    assert running.state == "running"


def test_terminate_during_boot_is_not_undone_by_the_boot(fleet: Fleet, machine: FakeMachine) -> None:
    instance = FakeInstance()
    machine.gate.clear()
    fleet.launch(instance, machine)
    fleet.terminate(instance)
    machine.gate.set()
    fleet.settle(["i-1"])
    assert instance.seen == ["pending", "shutting-down", "terminated"]
    assert machine.abandoned.is_set()


@pytest.mark.parametrize(
    ("code", "terminates", "shown"),
    [
        (REBOOTED, False, ("running", ["start"], False)),
        (130, False, ("stopped", [], False)),
        (130, True, ("terminated", ["destroy"], True)),
        (137, True, ("stopped", [], False)),
    ],
    ids=["reboot", "poweroff", "poweroff that terminates", "kill"],
)
def test_what_the_system_inside_does_to_itself_shows_in_the_api(  # noqa: PLR0913, PLR0917 (a table)
    fleet: Fleet,
    machine: FakeMachine,
    running: FakeInstance,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    terminates: bool,
    shown: tuple[str, list[str], bool],
) -> None:
    monkeypatch.setattr(docker, "exit_code", lambda _: code)
    running.terminates_on_shutdown = terminates
    fleet._sweep()  # noqa: SLF001 (the loop around it never ends)
    fleet.settle(["i-1"])
    assert (running.state, machine.done, running.gave_back) == shown


@pytest.mark.parametrize(
    ("state", "there", "after", "done"),
    [
        ("running", True, "running", []),
        ("running", False, "terminated", ["destroy"]),
        ("stopped", True, "stopped", []),
        ("pending", True, "running", ["resize 1024", "start"]),
        ("pending", False, "running", ["create flask-fleet/instance:abc 1024", "start"]),
        ("stopping", True, "stopped", ["stop"]),
        ("shutting-down", True, "terminated", ["destroy"]),
        ("shutting-down", False, "terminated", ["destroy"]),
        ("terminated", False, "terminated", []),
    ],
)
def test_next_process_finishes_what_the_killed_one_began(  # noqa: PLR0913, PLR0917 (a table)
    fleet: Fleet, machine: FakeMachine, state: str, there: bool, after: str, done: list[str]
) -> None:
    instance = FakeInstance(state=state)
    machine.there = there
    fleet.adopt(instance, machine)
    fleet.settle(["i-1"])
    assert (instance.state, machine.done) == (after, done)


def test_interrupted_reboot_is_done_again(fleet: Fleet, machine: FakeMachine) -> None:
    """Its container may be down, which must not count as a shutdown."""
    machine.rebooting = True
    fleet.adopt(FakeInstance(state="running"), machine)
    fleet.settle(["i-1"])
    assert (machine.done, machine.rebooting) == (["stop", "start"], False)


def test_change_is_followed_before_a_boot_and_after_each_end(settings: Settings, machine: FakeMachine) -> None:
    order: list[str] = []
    fleet = Fleet(settings, lambda anew: order.append(f"anew={anew} after {machine.done[-1].split()[0]}"))
    fleet.launch(FakeInstance(), machine)
    fleet.settle(["i-1"])
    fleet.stop(FakeInstance())
    fleet.settle(["i-1"])
    assert order == ["anew=True after create", "anew=False after start", "anew=False after stop"]


@dataclass
class FakeImage:
    id: str = "ami-1"
    seen: list[str] = field(default_factory=list)

    def become(self, state: str) -> None:
        self.seen.append(state)


@pytest.mark.parametrize(("reboot", "done"), [(True, ["stop", "keep", "start"]), (False, ["keep"])])
def test_image_is_available_when_its_disk_is_kept(  # noqa: PLR0913, PLR0917 (fixtures)
    fleet: Fleet,
    machine: FakeMachine,
    running: FakeInstance,
    monkeypatch: pytest.MonkeyPatch,
    reboot: bool,
    done: list[str],
) -> None:
    monkeypatch.setattr(Disk, "keep", lambda *_: machine.done.append("keep"))
    image = FakeImage()
    fleet.bake(running, image, reboot)
    fleet.settle(["ami-1"])
    assert (image.seen, machine.done, running.state) == (["pending", "available"], done, "running")
    assert not machine.rebooting


def test_disk_that_cannot_be_kept_fails_the_image_only(
    fleet: Fleet, machine: FakeMachine, running: FakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RehearsalError("no space left on device")

    monkeypatch.setattr(Disk, "keep", full)
    monkeypatch.setattr(Disk, "remove", lambda _: machine.done.append("remove"))
    image = FakeImage()
    fleet.bake(running, image, True)
    fleet.settle(["ami-1"])
    assert (image.seen, machine.done) == (["pending", "failed"], ["stop", "start", "remove"])
    assert running.state == "running"


def test_boot_fails_on_request(fleet: Fleet, machine: FakeMachine) -> None:
    fleet.faults.add(Fault("boot"))
    instance = FakeInstance()
    fleet.launch(instance, machine)
    fleet.settle(["i-1"])
    assert (instance.state, machine.done[-1]) == ("terminated", "destroy")
    assert instance.reason.startswith("Server.InternalError: Internal error on launch")
    assert fleet.faults.lines() == []


def test_slow_state_is_visible(fleet: Fleet, running: FakeInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        begun.set()
        over.wait(seconds)

    monkeypatch.setattr("rehearsal.fleet.time", SimpleNamespace(sleep=sleep))
    fleet.faults.add(Fault("slow", state="stopping", seconds=HOLD / 2))
    fleet.stop(running)
    assert begun.wait(60)
    fleet.settle(["i-1"])
    assert running.state == "stopping"
    over.set()
    while running.state == "stopping":
        over.wait(0.01)
    assert running.state == "stopped"


def test_instance_is_taken_away_after_its_notice(
    fleet: Fleet, machine: FakeMachine, running: FakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = Mock()
    monkeypatch.setattr("rehearsal.fleet.threading", SimpleNamespace(Timer=timer))
    fleet.reclaim("i-1", 120)
    ((seconds, reclaim),) = [call.args for call in timer.call_args_list]
    assert 0 < seconds <= 120
    assert running.seen[-1] == "running"
    reclaim()
    assert running.seen[-1] == "reclaimed"
    machine.ends = 1.0
    fleet.terminate(running)
    fleet.settle(["i-1"])
    assert running.reason == "Server.SpotInstanceTermination: Spot instance termination"
    assert machine.kept()["ends"] is not None
    with pytest.raises(RehearsalError, match="no instance 'i-9'"):
        fleet.reclaim("i-9", 1)
