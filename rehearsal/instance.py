"""One instance: a systemd container with the size, address, key and user data that the API says."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rehearsal import docker, network, sizing
from rehearsal.errors import RehearsalError
from rehearsal.images import Disk
from rehearsal.rules import OWN_MARK
from rehearsal.sizing import Size
from rehearsal.state import Settings, State, write

LOG = logging.getLogger(__name__)

SECCOMP = Path(__file__).with_name("seccomp.json")
"""What an instance's root must not do to the machine, such as turning off its swap."""

BOOT_LIMIT = 120.0
"""Seconds after which an instance counts as running although cloud-init has not ended, as on EC2."""

STOP_LIMIT = 60
"""Seconds for a clean shutdown; then the container is killed."""

POLL = 0.2
"""Seconds between two looks at a booting instance."""

REBOOTED = 129
"""Exit code of a container whose systemd asked the kernel for a reboot (SIGHUP to process 1 of its namespace)."""

BOOTED = "test -e /run/cloud-init/result.json && ! test -e /run/nologin"

KEPT = ("instance_id", "address", "keys", "user_data", "extra_addresses", "ami_id", "ends", "rebooting")
"""Attributes of a machine that outlive the API process."""

NO_USER_DATA = "#cloud-config\n{}\n"


class InstanceError(RehearsalError):
    """An instance could not be started, or died."""


def hostname(address: str) -> str:
    """Name a host as EC2 does by its private IPv4 address, for example ``ip-10-71-0-4``."""
    return "ip-" + address.replace(".", "-")


@dataclass
class Machine:
    """The container behind one EC2 instance.

    Attributes:
        directory: Where its files are.
        address: Private IPv4 address.
        keys: Public keys that may log in, in OpenSSH format.
        user_data: Decoded user data.
        extra_addresses: Elastic IPs that point to it.
        ami_id: The image that it boots, when that is one made from another instance.
        ends: When it is taken away, in seconds since the epoch; None for never.
        rebooting: Whether it is on its way down to come up again.
        abandoned: Set when nobody waits for its boot any more.
    """

    settings: Settings
    directory: Path
    instance_id: str
    address: str
    keys: list[str]
    user_data: str | None = None
    extra_addresses: set[str] = field(default_factory=set)
    ami_id: str | None = None
    ends: float | None = None
    rebooting: bool = False
    abandoned: threading.Event = field(default_factory=threading.Event)

    @property
    def container(self) -> str:
        """Name of the container."""
        return f"{self.settings.name}-{self.instance_id}"

    @property
    def volume(self) -> str:
        """Name of the volume with the inner Docker engine's data."""
        return f"{self.container}-docker"

    def kept(self) -> dict[str, Any]:
        """Return the attributes from which ``machine_again`` makes this object again."""
        return {name: getattr(self, name) for name in KEPT}

    def exists(self) -> bool:
        """Ask Docker whether there is the container, running or not."""
        return docker.attempt("container", "inspect", "--format", "{{.Id}}", self.container).status == 0

    def create(self, image: str, size: Size) -> None:
        """Create the container, without starting it.

        It boots ``image`` unless ``ami_id`` is set.

        Raises:
            DockerError: The engine refused.
        """
        label = f"--label={docker.LABEL}={self.settings.name}"
        cpus = self._write_files(size)
        docker.run("volume", "create", label, self.volume)
        if self.ami_id:
            disk = Disk(self.settings, self.ami_id)
            disk.fill(self.volume)
            image = disk.image
        docker.run("container", "create", label, *self.options(), *limits(size, cpus), image)

    def options(self) -> list[str]:
        """List the options that make a container a host for systemd and Docker, without ``--privileged``."""
        mounts = [(name, f"/proc/{name}") for name in ("cpuinfo", "meminfo")]
        mounts.append(("seed", "/var/lib/cloud/seed/nocloud"))
        if (self.directory / "resolv.conf").exists():
            # Docker's own 127.0.0.11 is out of reach for containers of the engine inside.
            mounts.append(("resolv.conf", "/etc/resolv.conf"))
        return [
            f"--name={self.container}",
            f"--hostname={hostname(self.address)}",
            f"--network={self.settings.docker_network}",
            f"--ip={self.address}",
            "--restart=no",
            f"--stop-timeout={STOP_LIMIT}",
            "--tty",  # systemd writes the console log to it
            "--cap-add=ALL",
            # SYS_RESOURCE is missing on some hosts; modules and the clock are the whole machine's.
            "--cap-drop=SYS_RESOURCE",
            "--cap-drop=SYS_MODULE",
            "--cap-drop=SYS_TIME",
            f"--security-opt=seccomp={SECCOMP}",
            "--security-opt=apparmor=unconfined",
            "--security-opt=no-new-privileges=false",  # sudo needs it, whatever the engine's default is
            "--security-opt=systempaths=unconfined",
            "--device-cgroup-rule=a *:* rwm",
            "--cgroupns=private",
            "--tmpfs=/run:exec,mode=755",
            "--tmpfs=/run/lock",
            f"--mount=type=volume,source={self.volume},target=/var/lib/docker",
            *(
                f"--mount=type=bind,source={self.directory / source},target={target},readonly"
                for source, target in mounts
            ),
        ]

    def _write_files(self, size: Size) -> list[int]:
        """Write what is mounted into the container; returns the chosen CPUs."""
        seed = self.directory / "seed"
        seed.mkdir(parents=True, exist_ok=True)
        write(seed / "meta-data", self.metadata())
        write(seed / "user-data", self.user_data or NO_USER_DATA)
        servers = network.resolv_conf()
        if servers is not None:
            write(self.directory / "resolv.conf", servers)
        cpus = sizing.choose_cpus(size.vcpus, sizing.available_cpus(), docker.pinned_cpus())
        proc = Path("/proc")
        write(self.directory / "meminfo", sizing.meminfo((proc / "meminfo").read_text(encoding="utf-8"), size.memory))
        write(self.directory / "cpuinfo", sizing.cpuinfo((proc / "cpuinfo").read_text(encoding="utf-8"), cpus))
        return cpus

    def metadata(self) -> str:
        """Write cloud-init's meta-data as JSON, which is YAML too."""
        known = {"instance-id": self.instance_id, "local-hostname": hostname(self.address), "public-keys": self.keys}
        return json.dumps(known, indent=2) + "\n"

    def resize(self, size: Size) -> None:
        """Apply a size to the stopped container.

        Raises:
            DockerError: The engine refused.
        """
        docker.run("container", "update", *limits(size, self._write_files(size)), self.container)

    def start(self) -> None:
        """Start the container and give it its Elastic IPs.

        Raises:
            DockerError: The engine could not start it.
        """
        self.abandoned.clear()
        docker.run("container", "start", self.container, timeout=120)
        for address in sorted(self.extra_addresses):
            self.add_address(address)

    def stop(self) -> None:
        """Shut down cleanly, as systemd does on power off.

        Raises:
            DockerError: The engine could not stop it.
        """
        docker.run("container", "stop", self.container, timeout=STOP_LIMIT + 60)

    def destroy(self) -> None:
        """Keep the console log, then remove the container and its volume; what is gone already is fine."""
        write(self.directory / "console.log", self.console())
        docker.attempt("container", "rm", "--force", "--volumes", self.container, timeout=120)
        docker.attempt("volume", "rm", "--force", self.volume)

    def console(self) -> str:
        """Read the console log; that of the last life when the container is gone."""
        outcome = docker.attempt("container", "logs", "--tail=2000", self.container)
        kept = self.directory / "console.log"
        if outcome.status and kept.exists():
            return kept.read_text(encoding="utf-8")
        return outcome.stdout + (outcome.stderr if outcome.status else "")

    def add_address(self, address: str) -> None:
        """Have the instance answer to an Elastic IP."""
        # The ping tells this machine at once who has the address now; its own neighbour table would lag behind.
        script = f"ip address replace {address}/32 dev eth0; ping -c1 -W1 -I {address} {self._gateway()}"
        docker.attempt("container", "exec", self.container, "sh", "-c", script)

    def drop_address(self, address: str) -> None:
        """Take an Elastic IP away."""
        docker.attempt("container", "exec", self.container, "ip", "address", "del", f"{address}/32", "dev", "eth0")

    def _gateway(self) -> str:
        return str(network.parse_network(self.settings.network)[1])

    def wait(self) -> None:
        """Wait until the boot has ended: sshd answers and cloud-init is done.

        Returns quietly after ``BOOT_LIMIT`` seconds too: on EC2 an instance is running then, whatever happens in it.

        Raises:
            InstanceError: The container died while it booted.
            DockerError: The engine does not answer.
        """
        deadline = time.monotonic() + BOOT_LIMIT
        while time.monotonic() < deadline and not self.abandoned.is_set():
            code = docker.exit_code(self.container)
            if code == REBOOTED:
                self.start()
            elif code is not None:
                raise InstanceError(f"the container ended with exit code {code}; {self._log_tail()}")
            # Last, because sshd soon refuses who asks it five times a second and never logs in.
            elif not self._exec_fails(BOOTED) and ssh_answers(self.address):
                return
            time.sleep(POLL)
        LOG.warning("%s: boot has not ended after %.0f s", self.instance_id, BOOT_LIMIT)

    def _exec_fails(self, script: str) -> bool:
        return docker.attempt("container", "exec", self.container, "sh", "-c", script).status != 0

    def _log_tail(self) -> str:
        lines = [line.strip() for line in self.console().splitlines() if line.strip()]
        return f"console: {' | '.join(lines[-3:])}" if lines else "nothing on its console"


def limits(size: Size, cpus: Sequence[int]) -> list[str]:
    """List the options of ``docker container create`` and ``docker container update`` that enforce a size.

    ``cpus`` are the CPU numbers to run on, so that ``nproc`` inside tells the truth.
    """
    return [
        f"--memory={size.memory}m",
        f"--memory-swap={size.memory}m",  # equal to the memory: no swap, as on an AMI
        f"--cpus={len(cpus)}",
        f"--cpuset-cpus={','.join(map(str, cpus))}",
    ]


def ssh_answers(address: str, port: int = 22) -> bool:
    """Tell whether an SSH server greets, whatever the security groups say."""
    try:
        with socket.socket() as connection:
            connection.settimeout(1)
            with contextlib.suppress(PermissionError):  # only root may mark; then a group must open the port
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, OWN_MARK)
            connection.connect((address, port))
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def machine_again(settings: Settings, kept: dict[str, Any]) -> Machine:
    """Make a machine from what ``Machine.kept`` returned; its container may or may not exist."""
    return Machine(settings, State.of(settings.name).instance(kept["instance_id"]), **kept)


def machine_for(settings: Settings, instance_id: str, address: str, keys: list[str], user_data: str | None) -> Machine:
    """Describe the container that an instance is to have.

    ``address`` is the private IPv4 address, ``keys`` are in OpenSSH format, and ``user_data`` is decoded.
    """
    directory = State.of(settings.name).instance(instance_id)
    return Machine(settings, directory, instance_id, address, keys, user_data)
