"""The packet filter of this machine, which the tests do not touch."""

from pathlib import Path

import pytest

from rehearsal import firewall
from rehearsal.docker import Outcome
from rehearsal.firewall import Firewall, FirewallError, Host
from rehearsal.rules import Guest, Names
from rehearsal.state import Settings

LISTED = """-P PREROUTING ACCEPT
-N {chain}
-N FF-other-in
-A POSTROUTING -o eth0 -j FF-other-in
-A POSTROUTING -o ff-1 -m comment --comment "flask-fleet rehearsal trial" -j {chain}
-A {chain} -j DROP
"""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the commands instead of running them; no rule exists yet."""
    commands: list[list[str]] = []

    def attempt(_self: Host, command: list[str], _stdin: str = "") -> Outcome:
        commands.append(command)
        return Outcome(int("-C" in command), LISTED.format(chain=Names("trial").ingress), "")

    monkeypatch.setattr(Host, "attempt", attempt)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return commands


def test_filter_is_written_only_when_something_changed(settings: Settings, ran: list[list[str]]) -> None:
    guests: list[Guest] = []
    wall = Firewall(settings, lambda: guests)
    wall.sync(True)
    assert [command[0] for command in ran].count("iptables-restore") == 1
    assert sum("-I" in command for command in ran) == 4
    ran.clear()
    wall.sync()
    assert ran == []
    guests.append(Guest(("10.99.0.4",)))
    wall.sync()
    assert ran == []  # it has no rule, so nothing is open to it either way
    wall.sync(True)
    assert ran[0] == ["iptables-restore", "--wait=10", "--noflush"]


def test_only_our_own_chains_are_removed(ran: list[list[str]]) -> None:
    assert firewall.remove("trial", "image") == 1
    changed = [command for command in ran if "-S" not in command]
    chain = Names("trial").ingress
    assert [command[4:6] for command in changed] == [["-D", "POSTROUTING"], ["-F", chain], ["-X", chain]]
    assert changed[0][-1] == chain


def test_failure_has_the_command_and_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "attempt", lambda *_: Outcome(4, "", "Permission denied (you must be root)\n"))
    with pytest.raises(FirewallError, match=r"iptables -t nat failed \(4\): Permission denied"):
        Host("image").run(["iptables", "-t", "nat"])


def test_who_is_not_root_asks_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A member of the group docker may change the filter through a container on the host's network."""
    monkeypatch.undo()
    script = tmp_path / "docker"
    script.write_text('#!/bin/sh\necho "$*"\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    said = Host("image:1").run(["iptables", "-S"])
    assert said.startswith("run --rm --interactive --network=host --cap-add=NET_ADMIN")
    assert said.endswith("--entrypoint=iptables image:1 -S\n")
