"""The packet filter of this machine, as far as a rehearsal uses it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from rehearsal import docker, network
from rehearsal.errors import RehearsalError
from rehearsal.rules import METADATA_PORT, Guest, Names, ruleset
from rehearsal.state import Settings

WAIT = "--wait=10"
"""Docker changes the filter at the same time."""

TIMEOUT = 60.0
"""Seconds that one command may take."""

TOOLS = "/usr/sbin:/sbin"
"""Where iptables is when the PATH of a person does not name it."""


class FirewallError(RehearsalError):
    """The packet filter could not be changed."""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{TOOLS}"


class Host:
    """Runs commands on this machine's network: as root, or else in a container that Docker lets do so."""

    def __init__(self, image: str) -> None:
        """Run commands as root, or else in a container of an image that has iptables."""
        self.image = image

    def attempt(self, command: list[str], stdin: str = "") -> docker.Outcome:
        """Run a command that may fail, with ``stdin`` as its input.

        Raises:
            FirewallError: The command cannot be run, or does not end in time.
        """
        full = command
        if os.geteuid() != 0:
            options = ["--rm", "--interactive", "--network=host", "--cap-add=NET_ADMIN", "--cap-add=NET_RAW"]
            full = ["docker", "run", *options, f"--entrypoint={command[0]}", self.image, *command[1:]]
        try:
            done = subprocess.run(
                full,
                capture_output=True,
                check=False,
                encoding="utf-8",
                env={**os.environ, "PATH": _path()},
                errors="replace",
                input=stdin,
                timeout=TIMEOUT,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FirewallError(f"cannot run {command[0]}, which enforces the security groups: {error}") from error
        return docker.Outcome(done.returncode, done.stdout, done.stderr)

    def run(self, command: list[str], stdin: str = "") -> str:
        """Run a command that must succeed, and return its stdout.

        Raises:
            FirewallError: The command failed.
        """
        outcome = self.attempt(command, stdin)
        if outcome.status:
            raise FirewallError(f"{shlex.join(command[:4])} failed ({outcome.status}): {outcome.stderr.strip()}")
        return outcome.stdout


class Firewall:
    """The security groups of one rehearsal, enforced."""

    def __init__(
        self, settings: Settings, guests: Callable[[], list[Guest]], controller: Callable[[], str] = lambda: ""
    ) -> None:
        """Start with nothing enforced.

        Args:
            guests: Returns the instances as the API knows them at the moment.
            controller: Returns this machine's address outside at the moment; empty without one.
        """
        self._host = Host(settings.image)
        self._names = Names(settings.name)
        self._guests = guests
        self._controller = controller
        self._metadata = (str(network.parse_network(settings.network)[1]), METADATA_PORT)
        self._servers = network.name_servers()
        self._applied = ""
        self._lock = threading.Lock()

    def sync(self, anew: bool = False) -> None:
        """Enforce what the API says now.

        With ``anew`` that is done also when nothing changed, because somebody else may have changed the filter.

        Raises:
            FirewallError: The filter could not be changed; what was enforced before still is.
        """
        with self._lock:
            wanted = ruleset(self._names, self._guests(), self._servers, self._metadata, self._controller())
            if wanted == self._applied and not anew:
                return
            self._host.run(["iptables-restore", WAIT, "--noflush"], wanted)
            if anew or not self._applied:
                self._enter()
            self._applied = wanted

    def _enter(self) -> None:
        for table, chain, rule in self._names.jumps():
            if self._host.attempt(["iptables", WAIT, "-t", table, "-C", chain, *rule]).status:
                self._host.run(["iptables", WAIT, "-t", table, "-I", chain, *rule])


def filter_bridge(settings: Settings) -> None:
    """Let the packet filter see what goes from one instance to another on the same bridge.

    The Docker network of the rehearsal has to exist.

    Raises:
        FirewallError: This kernel does not let it.
    """
    host, names = Host(settings.image), Names(settings.name)
    switch = Path(f"/sys/class/net/{names.bridge}/bridge/nf_call_iptables")
    everywhere = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not everywhere.exists():
        host.attempt(["modprobe", "br_netfilter"])
    try:
        if everywhere.read_text(encoding="ascii").strip() == "1":
            return
        host.run(["ip", "link", "set", "dev", names.bridge, "type", "bridge", "nf_call_iptables", "1"])
        if switch.read_text(encoding="ascii").strip() == "1":
            return
    except OSError as error:
        message = f"cannot enforce security groups between instances, `modprobe br_netfilter` may help: {error}"
        raise FirewallError(message) from error
    raise FirewallError(f"cannot enforce security groups between instances: {switch} stays 0")


def remove(name: str, image: str) -> int:
    """Remove everything of a rehearsal from the packet filter, whatever state it is in, and count the removed chains.

    ``image`` has iptables in it, and is used when this process is not root.

    Raises:
        FirewallError: Something could not be removed.
    """
    host, names = Host(image), Names(name)
    removed = 0
    if os.geteuid() == 0 and shutil.which("iptables", path=_path()) is None:
        return 0  # then there is no Docker either
    for table, chain in names.chains():
        listed = host.attempt(["iptables", WAIT, "-t", table, "-S"])
        rules = [shlex.split(line) for line in listed.stdout.splitlines()]
        for rule in rules:
            if rule[:1] == ["-A"] and rule[-2:] == ["-j", chain]:
                host.run(["iptables", WAIT, "-t", table, "-D", *rule[1:]])
        if ["-N", chain] in rules:
            host.run(["iptables", WAIT, "-t", table, "-F", chain])
            host.run(["iptables", WAIT, "-t", table, "-X", chain])
            removed += 1
    return removed
