"""All instances of one rehearsal: what happens to them, in which order, and who waits for it."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

from rehearsal import docker
from rehearsal.errors import RehearsalError
from rehearsal.faults import Faults
from rehearsal.images import Disk
from rehearsal.instance import REBOOTED, Machine
from rehearsal.sizing import Size
from rehearsal.state import Settings

LOG = logging.getLogger(__name__)

HOLD = 20.0
"""Seconds that DescribeInstances may be held; amazon.aws sleeps 15 s after each look that comes too early."""

SERVER_ERROR = "Server.InternalError"


class Instance(Protocol):
    """An EC2 instance in the API's memory, as far as the fleet needs it."""

    @property
    def id(self) -> str:
        """The EC2 instance id."""
        ...

    @property
    def size(self) -> Size:
        """Size of its present type."""
        ...

    @property
    def state(self) -> str:
        """Name of its EC2 state."""
        ...

    @property
    def terminates_on_shutdown(self) -> bool:
        """Whether ``poweroff`` inside terminates it."""
        ...

    def give_back(self) -> object:
        """Give back its addresses, interfaces and disks; nothing here uses the result."""
        ...

    def become(self, state: str, code: str = "", reason: str = "") -> None:
        """Change the EC2 state.

        The state reason has the code, such as ``Server.InternalError``, and the reason as its message.
        """
        ...

    def reclaim(self) -> None:
        """Terminate the instance as if AWS wanted it back."""
        ...


class Image(Protocol):
    """An AMI in the API's memory, as far as the fleet needs it."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    def become(self, state: str) -> None:
        """Change its state to ``pending``, ``available`` or ``failed``."""
        ...


class Fleet:
    """Containers that follow the API's instances.

    Each instance has one worker thread, so that what the API ordered happens one after the other.
    """

    def __init__(self, settings: Settings, changed: Callable[[bool], None] = lambda _: None) -> None:
        """Start with no instances.

        ``changed`` is called after each change, with True before an instance begins to boot.
        """
        self.settings = settings
        self.changed = changed
        self.machines: dict[str, Machine] = {}
        self.launched: dict[str, object] = {}
        self.faults = Faults()
        self._lingering: set[str] = set()
        self._instances: dict[str, Instance] = {}
        self._workers: dict[str, ThreadPoolExecutor] = {}
        self._pending: dict[str, Future[None]] = {}
        self._creating = threading.Lock()

    def launch(self, instance: Instance, machine: Machine) -> None:
        """Boot a new instance in its container."""
        instance.become("pending")
        self._register(instance, machine)
        self._submit(instance, lambda: self._create_and_boot(instance, machine))
        spot = self.faults.take("terminate", lambda one: not one.instance)
        if spot:
            self.reclaim(instance.id, spot.after)

    def reclaim(self, instance_id: str, notice: float) -> None:
        """Take an instance away after so many seconds, as AWS takes back a spot instance.

        Raises:
            RehearsalError: There is no such instance.
        """
        if instance_id not in self.machines:
            raise RehearsalError(f"there is no instance {instance_id!r}")
        self.machines[instance_id].ends = time.time() + notice
        self._reclaim_later(instance_id)

    def _reclaim_later(self, instance_id: str) -> None:
        machine, instance = self.machines[instance_id], self._instances[instance_id]
        timer = threading.Timer(max((machine.ends or 0) - time.time(), 0), instance.reclaim)
        timer.daemon = True
        timer.start()

    def adopt(self, instance: Instance, machine: Machine) -> None:
        """Take over an instance of an earlier API process, and finish what that one had begun."""
        self._register(instance, machine)
        unfinished: dict[str, Callable[[], None]] = {
            "pending": lambda: self._resize_and_boot(instance, machine),
            "stopping": lambda: self._halt(instance, machine),
            "shutting-down": lambda: self._destroy(instance, machine),
        }
        if instance.state == "terminated":
            return
        if machine.ends and instance.state != "shutting-down":
            self._reclaim_later(instance.id)
        if not machine.exists() and instance.state != "shutting-down":
            if instance.state == "pending":
                self._submit(instance, lambda: self._create_and_boot(instance, machine))
            else:
                self._submit(instance, lambda: self._end(instance, machine, SERVER_ERROR, "its container is gone"))
        elif machine.rebooting:
            self._submit(instance, lambda: self._reboot(instance, machine))
        elif instance.state in unfinished:
            self._submit(instance, unfinished[instance.state])

    def _register(self, instance: Instance, machine: Machine) -> None:
        self.machines[instance.id] = machine
        self._instances[instance.id] = instance
        self._workers[instance.id] = ThreadPoolExecutor(max_workers=1, thread_name_prefix=instance.id)

    def start(self, instance: Instance) -> None:
        """Start a stopped instance, with the size of its present type."""
        machine = self.machines[instance.id]
        instance.become("pending")
        self._submit(instance, lambda: self._resize_and_boot(instance, machine))

    def stop(self, instance: Instance) -> None:
        """Stop an instance."""
        machine = self.machines[instance.id]
        instance.become("stopping", "Client.UserInitiatedShutdown", "User initiated shutdown")
        machine.abandoned.set()
        self._submit(instance, lambda: self._halt(instance, machine))

    def reboot(self, instance: Instance) -> None:
        """Restart an instance; its EC2 state stays what it is."""
        machine = self.machines[instance.id]
        machine.rebooting = True
        self._submit(instance, lambda: self._reboot(instance, machine))

    def terminate(self, instance: Instance) -> None:
        """Remove an instance for good."""
        machine = self.machines[instance.id]
        instance.become("shutting-down", *_reason(machine))
        machine.abandoned.set()
        self._submit(instance, lambda: self._destroy(instance, machine))

    def bake(self, instance: Instance, image: Image, reboot: bool) -> None:
        """Make an image of an instance; ``reboot`` stops a running one meanwhile, so that its files are complete."""
        machine = self.machines[instance.id]
        image.become("pending")
        machine.rebooting = reboot and instance.state == "running"

        def work() -> None:
            try:
                self._bake(instance, machine, image)
            except RehearsalError:
                LOG.exception("%s: could not be made of %s", image.id, instance.id)
                image.become("failed")
                Disk(self.settings, image.id).remove()
            finally:
                machine.rebooting = False

        self._submit(instance, work)
        self._pending[image.id] = self._pending[instance.id]

    def _bake(self, instance: Instance, machine: Machine, image: Image) -> None:
        if not machine.rebooting:
            Disk(self.settings, image.id).keep(machine.container, machine.volume)
            image.become("available")
            return
        machine.stop()
        try:
            Disk(self.settings, image.id).keep(machine.container, machine.volume)
            image.become("available")
        finally:
            machine.start()
            self._boot(instance, machine)

    def settle(self, instance_ids: Iterable[str], limit: float = HOLD) -> None:
        """Wait until nothing happens to some instances or images any more, or until the limit in seconds.

        Unknown ids are ignored.
        """
        pending = [self._pending[one] for one in instance_ids if one in self._pending and one not in self._lingering]
        wait(pending, timeout=limit)

    def busy(self, instance_id: str) -> bool:
        """Tell whether an order for an instance is being carried out."""
        future = self._pending.get(instance_id)
        return future is not None and not future.done()

    def watch(self) -> None:
        """Look for ever for containers that end without an order from the API."""
        while True:
            try:
                self._sweep()
                self._follow_events()
            except (OSError, RehearsalError):
                LOG.exception("cannot watch the containers")
            time.sleep(1)

    def _follow_events(self) -> None:
        command = docker.events_command(self.settings.name)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
            for line in events.stdout or ():
                self._ended(line.strip().removeprefix(f"{self.settings.name}-"))

    def _sweep(self) -> None:
        """Look at all instances once: some may have ended while nobody watched."""
        for instance_id, instance in list(self._instances.items()):
            if instance.state == "running" and docker.exit_code(self.machines[instance_id].container) is not None:
                self._ended(instance_id)

    def _ended(self, instance_id: str) -> None:
        instance = self._instances.get(instance_id)
        if instance is not None and instance.state == "running" and not self.busy(instance_id):
            self._submit(instance, lambda: self._after_end(instance, self.machines[instance_id]))

    def _submit(self, instance: Instance, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except RehearsalError as error:
                LOG.warning("%s: %s", instance.id, error)
                self._fail(instance, str(error))
            except Exception as error:  # the worker is the last one who can tell
                LOG.exception("%s: failed", instance.id)
                self._fail(instance, str(error))
            try:
                self.changed(False)
            except RehearsalError:
                LOG.exception("%s: cannot follow its change", instance.id)

        self._pending[instance.id] = self._workers[instance.id].submit(guarded)

    def _fail(self, instance: Instance, reason: str) -> None:
        """Show a failure as EC2 does: an instance that never ran is terminated, another one stopped."""
        machine = self.machines[instance.id]
        if instance.state == "pending" and not (machine.directory / "ran").exists():
            self._end(instance, machine, SERVER_ERROR, reason)
        elif instance.state in {"pending", "running", "stopping"}:
            instance.become("stopped", SERVER_ERROR, reason)
        elif instance.state == "shutting-down":
            instance.become("terminated", SERVER_ERROR, reason)

    @staticmethod
    def _end(instance: Instance, machine: Machine, code: str, reason: str) -> None:
        """End an instance that nobody ordered to terminate."""
        machine.destroy()
        instance.give_back()
        instance.become("terminated", code, reason)

    def _create_and_boot(self, instance: Instance, machine: Machine) -> None:
        self._linger(instance)
        if machine.abandoned.is_set():
            return
        with self._creating:  # two that choose CPUs at the same time would choose the same ones
            machine.create(self.settings.image, instance.size)
            self.changed(True)
            machine.start()
        if self.faults.take("boot"):
            raise RehearsalError("Internal error on launch (a fault that was asked for)")
        self._boot(instance, machine)

    def _resize_and_boot(self, instance: Instance, machine: Machine) -> None:
        self._linger(instance)
        with self._creating:
            machine.resize(instance.size)
            self.changed(True)
            machine.start()
        self._boot(instance, machine)

    def _boot(self, instance: Instance, machine: Machine) -> None:
        begin = time.monotonic()
        machine.wait()
        (machine.directory / "ran").touch()
        if instance.state == "pending":
            instance.become("running")
            LOG.info("%s: booted in %.1f s", instance.id, time.monotonic() - begin)

    def _linger(self, instance: Instance) -> None:
        """Stay in the present state for a while if a fault wants it, and let everybody see it."""
        slow = self.faults.take("slow", lambda one: one.state == instance.state)
        if slow:
            self._lingering.add(instance.id)
            time.sleep(slow.seconds)
            self._lingering.discard(instance.id)

    def _halt(self, instance: Instance, machine: Machine) -> None:
        self._linger(instance)
        machine.stop()
        if instance.state == "stopping":
            instance.become("stopped", "Client.UserInitiatedShutdown", "User initiated shutdown")

    def _reboot(self, instance: Instance, machine: Machine) -> None:
        machine.stop()
        machine.start()
        self._boot(instance, machine)
        machine.rebooting = False

    def _destroy(self, instance: Instance, machine: Machine) -> None:
        self._linger(instance)
        machine.destroy()
        instance.become("terminated", *_reason(machine))

    def _after_end(self, instance: Instance, machine: Machine) -> None:
        """Do what EC2 does when the system inside reboots, powers off or dies."""
        code = docker.exit_code(machine.container)
        if code is None:
            return
        LOG.info("%s: its container ended with exit code %d", instance.id, code)
        if code == REBOOTED:
            machine.start()
            self._boot(instance, machine)
        elif code in {0, 130} and instance.terminates_on_shutdown:
            self._end(instance, machine, "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
        elif code in {0, 130}:
            instance.become("stopped", "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
        else:
            instance.become("stopped", SERVER_ERROR, f"the container ended with exit code {code}")


def _reason(machine: Machine) -> tuple[str, str]:
    """Say who terminates an instance."""
    if machine.ends and machine.ends <= time.time():
        return "Server.SpotInstanceTermination", "Spot instance termination"
    return "Client.UserInitiatedShutdown", "User initiated shutdown"
