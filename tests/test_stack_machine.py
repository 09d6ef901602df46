"""What the roll-out keeps on the machine: the lock, the audit log, and which releases can be gone back to."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from roles.stack.library.stack_machine import (
    ADMITTED,
    LOCK,
    PORTS,
    RENDERED,
    UNFINISHED,
    Machine,
    StepError,
    activate,
    begin,
    digest,
    diversion,
    end,
    forget_mounted,
    kept_releases,
    last_words,
    lock,
    locked,
    look,
    note_ports,
    stand_in,
    strangers_to_nginx,
    try_nginx,
    unlock,
    write,
)
from tests.fake_docker import Docker
from tests.project import ROOT

JANE = {"who": "jane", "controller": "janes-machine", "pid": 1, "began": "7"}
JOE = {"who": "joe", "controller": "joes-machine", "pid": 2, "began": "7"}
DEAD = JOE | {"pid": 99}
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


def taken(machine: Machine, ours: dict[str, Any], dead: dict[str, Any] | None = None) -> dict[str, Any]:
    """Take the lock; give the answer."""
    return lock(machine, ours, HOUR_S, dead or {})


def race(machine: Machine, dead: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Have eight try to take the lock at once; give those who won."""
    racers = [JOE | {"pid": pid} for pid in range(100, 108)]
    start = Barrier(len(racers))

    def run(ours: dict[str, Any]) -> bool:
        start.wait()
        return not taken(machine, ours, dead).get("failed")

    with ThreadPoolExecutor(len(racers)) as pool:
        return [ours for ours, won in zip(racers, pool.map(run, racers), strict=True) if won]


def test_the_second_is_told_who_deploys_and_since_when(machine: Machine) -> None:
    """Two deploys at once would stop each other's replicas."""
    assert not taken(machine, JANE).get("failed")
    refused = taken(machine, JOE)
    assert refused["failed"]
    assert refused["holder"] == JANE
    assert "jane, from janes-machine, has been deploying here since 20" in refused["msg"]
    assert "the lock expires in 3" in refused["msg"]
    assert locked(machine, JOE, HOUR_S, {})["msg"].startswith("jane, from janes-machine, has been deploying here")


def test_only_looking_takes_nothing(machine: Machine) -> None:
    """In check mode."""
    assert not locked(machine, JANE, HOUR_S, {}).get("failed")
    assert not (machine.directory / LOCK).exists()


def test_of_many_at_once_exactly_one_wins(machine: Machine) -> None:
    """Two pipelines start in the same second sooner or later."""
    for _ in range(RACES):
        (winner,) = race(machine)
        unlock(machine, winner)


def test_of_many_before_the_first_deploy_exactly_one_wins(tmp_path: Path) -> None:
    """The folder is not there yet."""
    for number in range(RACES):
        machine = Machine(tmp_path / str(number) / "stack")
        assert len(race(machine)) == 1
        assert machine.directory.stat().st_mode & 0o777 == 0o755


def test_of_many_that_find_a_stale_lock_exactly_one_wins(machine: Machine) -> None:
    """Taking a lock over is a race of its own."""
    for _ in range(RACES):
        taken(machine, JANE)
        os.utime(machine.directory / LOCK, (0, 0))
        (winner,) = race(machine)
        unlock(machine, winner)


def test_of_many_that_find_a_dead_process_exactly_one_wins(machine: Machine) -> None:
    """The others know that the first holder is dead; the one who took over from it is not."""
    for _ in range(RACES):
        taken(machine, DEAD)
        (winner,) = race(machine, dead=DEAD)
        unlock(machine, winner)


def test_a_lock_that_was_left_behind_is_taken_over_aloud(machine: Machine) -> None:
    """Whoever was killed cannot unlock; whoever comes next should know."""
    taken(machine, JANE)
    os.utime(machine.directory / LOCK, (0, 0))
    assert not locked(machine, JOE, HOUR_S, {}).get("failed")
    answer = taken(machine, JOE)
    assert not answer.get("failed")
    assert "jane left behind at 1970-01-01" in answer["warnings"][0]
    assert taken(machine, JANE)["holder"] == JOE


def test_a_long_deploy_keeps_its_lock_while_its_process_lives(machine: Machine) -> None:
    """On the same controller, which can tell; elsewhere the time counts, anew from the roll-out on."""
    taken(machine, JANE)
    os.utime(machine.directory / LOCK, (0, 0))
    refused = taken(machine, JANE | {"pid": 3})
    assert refused["holder"] == JANE
    assert "since 1970-01-01 00:00:00 UTC; its process 1 lives" in refused["msg"]
    begin(machine, JANE, HOUR_S, {})
    refused = taken(machine, JOE)
    assert refused["holder"] == JANE
    assert "since 1970-01-01 00:00:00 UTC; the lock expires in 3" in refused["msg"]


def test_who_has_the_lock_can_take_it_again(machine: Machine) -> None:
    """A deploy makes sure of it before it replaces anything."""
    assert not any(taken(machine, JANE).get(key) for key in ("failed", "changed", "warnings"))
    assert not any(taken(machine, JANE).get(key) for key in ("failed", "changed", "warnings"))
    # Another container of a pipeline may have the same name and number.
    assert taken(machine, JANE | {"began": "8"})["failed"]


def test_only_ours_is_given_back(machine: Machine) -> None:
    """A run that was refused gives back as well, and so does one whose lock expired meanwhile."""
    unlock(machine, JANE)
    taken(machine, JANE)
    unlock(machine, JOE)
    assert taken(machine, JOE)["holder"] == JANE
    unlock(machine, JANE)
    assert not (machine.directory / LOCK).exists()
    assert not taken(machine, JOE).get("failed")


def test_a_roll_out_does_not_begin_when_the_lock_was_taken_over(machine: Machine) -> None:
    """Two would replace each other's replicas."""
    taken(machine, JANE)
    os.utime(machine.directory / LOCK, (0, 0))
    taken(machine, JOE)
    assert begin(machine, JANE, HOUR_S, {})["failed"]
    assert not (machine.directory / UNFINISHED).exists()


def test_a_roll_out_is_unfinished_until_its_end_which_leaves_a_line(machine: Machine) -> None:
    """Afterwards somebody asks who it was; one that was killed is finished by the next, which has another lock."""
    assert begin(machine, JANE, HOUR_S, {})["changed"]
    unlock(machine, JANE)
    taken(machine, JOE)
    assert (machine.directory / UNFINISHED).exists()
    end(machine, "one failed", "jane")
    assert not (machine.directory / UNFINISHED).exists()
    assert (machine.directory / "audit.log").read_text().endswith("one failed by jane\n")


def test_only_an_unfinished_roll_out_is_gone_over_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have left something to remove; the lock, which every deploy has by then, tells nothing."""
    docker = Docker(machine.directory / "bin", monkeypatch)
    docker.answer("config --format", says=json.dumps({"name": "fleet", "services": {}}))
    docker.answer("balancer-status", says="{}")
    monkeypatch.setattr("roles.stack.library.stack_machine.can_divert", lambda: False)
    activate(machine, "one")
    mark = machine.directory / "releases" / digest(machine.directory, list(RENDERED.values())) / "activated"
    mark.parent.mkdir()
    mark.write_text("jane")
    taken(machine, JANE)
    assert look(machine, None)["converged"]
    begin(machine, JANE, HOUR_S, {})
    assert not look(machine, None)["converged"]
    end(machine, "one live", "jane")
    assert look(machine, None)["converged"]


def test_activating_puts_both_files_in_place(machine: Machine) -> None:
    """The live release is recognised by what its files say, so they have to be the release's own."""
    activate(machine, "two")
    assert (machine.directory / "compose.yml").read_text() == "name: two\n"
    assert (machine.directory / "nginx" / "nginx.conf").read_text() == "# two\n"
    released = digest(machine.directory / "releases" / "two", ["compose.yml", "nginx.conf"])
    assert digest(machine.directory, ["compose.yml", "nginx/nginx.conf"]) == released


def test_nginx_can_read_what_an_operator_with_a_strict_umask_activates(machine: Machine) -> None:
    """Its folder was closed to nginx, and so was every later configuration."""
    arguments = {"directory": str(machine.directory), "action": "activate", "release": "two"}
    module = str(ROOT / "roles/stack/library/stack_machine.py")
    command = [sys.executable, module, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})]
    subprocess.run(command, check=True, capture_output=True, timeout=60, umask=0o077, cwd=ROOT)
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in [machine.directory / "nginx", *machine.directory.glob("nginx/*")]
    }
    assert modes == {"nginx": 0o755, "nginx.conf": 0o644, "ports.json": 0o644}


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
    (tmp_path / "note.new").symlink_to("/dev/full")
    with pytest.raises(StepError, match=r"note is not written: No space left on device"):
        write(note, "after")
    assert [one.name for one in tmp_path.iterdir()] == ["note"]
    assert note.read_text() == "before"


def container(name: str, *addresses: str) -> dict[str, Any]:
    """Describe a container as far as it matters to whom nginx may ask."""
    return {
        "Id": name,
        "NetworkSettings": {"Networks": {str(at): {"IPAddress": one} for at, one in enumerate(addresses)}},
    }


def test_nginx_is_told_the_ports_of_what_runs_and_of_what_is_to_come(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a release that runs a service no more, and of one that is new."""
    docker = Docker(tmp_path / "bin", monkeypatch)
    services = {"nginx": {}, "app": {"environment": {"PORT": "5000"}}, "api": {"environment": {"PORT": "5001"}}}
    docker.answer("config --format", says=json.dumps({"name": "fleet", "services": services}))
    running = [
        {"Config": {"Labels": {"com.docker.compose.service": name}, "Env": environment}}
        for name, environment in (("nginx", None), ("app", ["A=b=c", "PORT=28255"]), ("old", ["PORT=10001"]))
    ]
    docker.answer("ps --all", says="one")
    docker.answer("inspect", says=json.dumps(running))
    note_ports(machine, "two")
    assert json.loads((machine.directory / PORTS).read_text()) == {
        "nginx": [],
        "app": [5000, 28255],
        "api": [5001],
        "old": [10001],
    }


def test_only_a_roll_out_keeps_containers_from_nginx(machine: Machine) -> None:
    """Those that it started, also one that has no address because it keeps crashing; none when nobody rolls out."""
    activate(machine, "one")
    both = [container("old", "172.18.0.2"), container("new", "172.18.0.3"), container("crashing", "")]
    assert strangers_to_nginx(machine, both) == set()
    write(machine.directory / ADMITTED, json.dumps({"until_time": 0, "addresses": ["172.18.0.2"]}))
    assert strangers_to_nginx(machine, both) == {"new", "crashing"}
    end(machine, "two failed", "jane")
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
        "Config": {"Env": [], "Labels": {"com.docker.compose.service": "nginx"}},
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


@pytest.mark.parametrize(("restarts", "part"), [(0, ["--tail", "20"]), (2, ["--until", "2026-11-22T06:19:00.1Z"])])
def test_last_words_are_those_before_it_was_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: int, part: list[str]
) -> None:
    """A server that says much at its start would hide why it ended."""
    docker = Docker(tmp_path / "bin", monkeypatch)
    state = {"RestartCount": restarts, "State": {"StartedAt": "2026-11-22T06:19:00.1Z"}}
    docker.answer("inspect", says=json.dumps([state]))
    docker.answer("logs", says="\n".join(map(str, range(50))))
    assert last_words(Machine(tmp_path), "0a1b").splitlines() == [str(number) for number in range(30, 50)]
    assert docker.asked("logs") == [["logs", *part, "0a1b"]]
