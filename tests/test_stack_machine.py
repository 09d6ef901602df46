"""What the roll-out keeps on the machine: the lock, the audit log, and which releases can be gone back to."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from roles.stack.action_plugins.deploy_lock import is_alive
from roles.stack.library.stack_machine import (
    ADMITTED,
    LOCK,
    RENDERED,
    Machine,
    activate,
    digest,
    diversion,
    forget_mounted,
    kept_releases,
    lock,
    locked,
    stand_in,
    strangers_to_nginx,
    try_nginx,
    unlock,
    write,
)
from tests.fake_docker import Docker

JANE = {"who": "jane", "controller": "janes-machine", "pid": 1}
JOE = {"who": "joe", "controller": "joes-machine", "pid": 2}
HOUR_S = 3600
RACES = 20


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give a folder with two rendered releases, neither of them live."""
    for release in ("one", "two"):
        folder = tmp_path / "releases" / release
        folder.mkdir(parents=True)
        (folder / "compose.yml").write_text(f"name: {release}\n")
        (folder / "nginx.conf").write_text(f"# {release}\n")
    return Machine(tmp_path)


def test_the_second_is_told_who_deploys_and_since_when(machine: Machine) -> None:
    """Two deploys at once would stop each other's replicas."""
    assert not lock(machine, JANE, HOUR_S).get("failed")
    refused = lock(machine, JOE, HOUR_S)
    assert refused["failed"]
    assert refused["holder"] == JANE
    assert "jane, from janes-machine, has been deploying here since 20" in refused["msg"]
    assert locked(machine, HOUR_S) == refused


def test_of_many_at_once_exactly_one_wins(machine: Machine) -> None:
    """Two pipelines start in the same second sooner or later."""
    for _ in range(RACES):
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: lock(machine, JANE, HOUR_S), range(8)))
        assert sum(not result.get("failed") for result in results) == 1
        unlock(machine, "one live", "jane")


def test_of_many_that_find_a_stale_lock_exactly_one_wins(machine: Machine) -> None:
    """Taking a lock over is a race of its own."""
    for _ in range(RACES):
        lock(machine, JANE, HOUR_S)
        os.utime(machine.directory / LOCK, (0, 0))
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: lock(machine, JOE, HOUR_S), range(8)))
        assert sum(not result.get("failed") for result in results) == 1
        unlock(machine, "one live", "joe")


def test_a_lock_that_was_left_behind_is_taken_over_aloud(machine: Machine) -> None:
    """Whoever was killed cannot unlock; whoever comes next should know."""
    lock(machine, JANE, HOUR_S)
    os.utime(machine.directory / LOCK, (0, 0))
    assert not locked(machine, HOUR_S).get("failed")
    taken = lock(machine, JOE, HOUR_S)
    assert not taken.get("failed")
    assert "jane left behind at 1970-01-01" in taken["warnings"][0]
    assert lock(machine, JANE, HOUR_S)["holder"] == JOE


def test_unlocking_lets_the_next_in_and_leaves_a_line(machine: Machine) -> None:
    """Afterwards somebody asks who it was."""
    lock(machine, JANE, HOUR_S)
    unlock(machine, "one failed", "jane")
    assert not lock(machine, JOE, HOUR_S).get("failed")
    assert (machine.directory / "audit.log").read_text().endswith("one failed by jane\n")


def test_a_process_is_alive_until_it_ended() -> None:
    """The lock of a run that was killed on this controller is taken over at once."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert is_alive(process.pid)
    assert not is_alive(process.pid)


def test_activating_puts_both_files_in_place(machine: Machine) -> None:
    """The live release is recognised by what its files say, so they have to be the release's own."""
    activate(machine, "two")
    assert (machine.directory / "compose.yml").read_text() == "name: two\n"
    assert (machine.directory / "nginx" / "nginx.conf").read_text() == "# two\n"
    released = digest(machine.directory / "releases" / "two", ["compose.yml", "nginx.conf"])
    assert digest(machine.directory, ["compose.yml", "nginx/nginx.conf"]) == released


def test_full_disk_leaves_both_files_of_the_release_before(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of each release would be a release that nobody made."""
    activate(machine, "one")

    def copy_until_full(source: Path, target: str) -> None:
        if source.name == "nginx.conf":
            raise OSError(errno.ENOSPC, "No space left on device")
        Path(target).write_bytes(source.read_bytes())

    monkeypatch.setattr("shutil.copyfile", copy_until_full)
    with pytest.raises(OSError, match="No space"):
        activate(machine, "two")
    assert digest(machine.directory, list(RENDERED.values())) == digest(
        machine.directory / "releases" / "one", list(RENDERED)
    )


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """The lock that a full disk cut in half could be read by nobody."""
    note = tmp_path / "note"
    write(note, "before")
    (tmp_path / "note.new").mkdir()
    with pytest.raises(OSError, match=r"note\.new"):
        write(note, "after")
    assert note.read_text() == "before"


def container(name: str, *addresses: str) -> dict[str, Any]:
    """Describe a container as far as it matters to whom nginx may ask."""
    return {
        "Id": name,
        "NetworkSettings": {"Networks": {str(at): {"IPAddress": one} for at, one in enumerate(addresses)}},
    }


def test_only_a_roll_out_keeps_containers_from_nginx(machine: Machine) -> None:
    """Those that it started, also one that has no address because it keeps crashing; none when nobody rolls out."""
    activate(machine, "one")
    both = [container("old", "172.18.0.2"), container("new", "172.18.0.3"), container("crashing", "")]
    assert strangers_to_nginx(machine, both) == set()
    write(machine.directory / ADMITTED, json.dumps({"until_time": 0, "addresses": ["172.18.0.2"]}))
    assert strangers_to_nginx(machine, both) == {"new", "crashing"}
    unlock(machine, "two failed", "jane")
    assert strangers_to_nginx(machine, both) == set()


def test_only_what_once_worked_can_be_gone_back_to(machine: Machine) -> None:
    """A release that was rendered, or that failed, is no way back."""
    activate(machine, "one")
    assert kept_releases(machine.directory) == []
    (machine.directory / "releases" / "two" / "activated").write_text("jane\n")
    assert [release["id"] for release in kept_releases(machine.directory)] == ["two"]


def test_a_folder_without_a_stack_has_no_release(tmp_path: Path) -> None:
    """The first deploy has nothing to go back to."""
    assert digest(tmp_path, ["compose.yml"]) == ""


@pytest.mark.parametrize(("folder", "target"), [("secrets", "/run/secrets"), ("servers", "/etc/fleet")])
def test_what_is_mounted_stays_as_long_as_a_release_that_needs_it(tmp_path: Path, folder: str, target: str) -> None:
    """A rollback without its secrets would start nothing; what nobody needs must not lie about."""
    for name in ("app-old", "app-kept", "app-live"):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "key").write_text("value")
    nginx = {"volumes": [{"source": str(tmp_path / "nginx"), "target": "/etc/nginx/stack"}]}
    apps = [
        {"volumes": [{"source": str(tmp_path / folder / name), "target": target}]} for name in ("app-kept", "app-live")
    ]
    # The same name of another kind keeps nothing.
    other = {"volumes": [{"source": str(tmp_path / "else" / "app-old"), "target": "/else"}]}
    forget_mounted(tmp_path, [nginx, *apps, other, {"volumes": [{"type": "tmpfs", "target": "/x"}]}, {}])
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["app-kept", "app-live"]
    forget_mounted(tmp_path, [nginx])
    assert list((tmp_path / folder).iterdir()) == []


@pytest.mark.parametrize(("host_ip", "asked"), [("0.0.0.0", ""), ("127.0.0.1", "ip daddr 127.0.0.1 ")])  # noqa: S104
def test_only_what_is_published_is_led_to_who_stands_in(host_ip: str, asked: str) -> None:
    """Another program may have the port at another address of the machine."""
    port = {"host_ip": host_ip, "published": "7151", "target": 80}
    rules = [line for line in diversion("t", [port], "172.19.0.3").splitlines() if line.startswith("add rule")]
    assert rules == [
        f"add rule ip t {chain} fib daddr type local {asked}tcp dport 7151 dnat to 172.19.0.3:80"
        for chain in ("prerouting", "output")
    ]


def test_only_an_nginx_that_was_tried_is_found_by_the_services(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that stands in has nginx's names in their networks; the one on trial may be broken."""
    docker = Docker(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin" / "nft").symlink_to("/bin/true")
    port = {"host_ip": "127.0.0.1", "published": "7151", "target": 80}
    config = {"name": "fleet", "services": {"nginx": {"ports": [port]}}, "networks": {"default": {"name": "front"}}}
    beside = {
        "Id": "beside",
        "RestartCount": 0,
        "Config": {"Labels": {"com.docker.compose.service": "nginx"}},
        "State": {"Running": True, "Restarting": False},
        "NetworkSettings": {"Networks": {"front": {"IPAddress": "172.19.0.9"}}},
    }
    docker.answer("config --format", says=json.dumps(config))
    docker.answer("inspect", says=json.dumps([beside]))
    docker.answer("balancer-status", says="{}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("roles.stack.library.stack_machine.connects", lambda _: True)
    try_nginx(machine, 1)
    assert stand_in(machine, 1) == {"changed": True, "serves": True}
    tried, stands_in = docker.asked("run --detach")
    assert "--use-aliases" in stands_in
    assert stands_in.index("--use-aliases") < stands_in.index("nginx"), "an option after the service is its command"
    assert "--use-aliases" not in tried
