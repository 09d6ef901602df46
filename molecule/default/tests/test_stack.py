"""The stack as site.yml leaves it, and as it is after a replica died and after the machine was restarted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from testinfra.host import Host

from bench.stack import CLIENTS, Stack, assert_nothing_lost

MOST_UNEVEN = 1.10
MOST_MEMORY_MIB = 200
SHARE_REQUESTS = 300
UNITS_MIB = {"B": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 1024.0}


def _mib(size: str) -> float:
    match = re.fullmatch(r"([\d.]+)(\w+)", size)
    assert match, size
    return float(match[1]) * UNITS_MIB[match[2]]


def test_engine_runs_and_starts_at_boot(host: Host) -> None:
    """Without the engine nothing serves, and unless it starts at boot nothing comes back after a reboot."""
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_every_replica_is_healthy_and_nginx_is_one(stack: Stack) -> None:
    """One replica too few is lost capacity, and one too many needs unplanned memory; a t2.micro gets three."""
    replicas = stack.containers("app")
    assert len(replicas) == stack.replicas == 3
    assert all("(healthy)" in replica.status for replica in replicas), replicas
    assert len(stack.containers("nginx")) == 1


def test_requests_reach_every_replica_evenly(stack: Stack) -> None:
    """The replicas are paid for to share the work, and only listed containers may answer."""
    answers = stack.ask(SHARE_REQUESTS)
    assert set(answers) == {replica.id for replica in stack.containers("app")}
    assert max(answers.values()) / min(answers.values()) <= MOST_UNEVEN


def test_configuration_of_nginx_is_valid(host: Host, stack: Stack) -> None:
    """After a crash nginx must come back with the file that is there now."""
    checked = host.run(f"cd {stack.directory} && docker compose exec -T nginx nginx -t -c /etc/nginx/stack/nginx.conf")
    assert checked.rc == 0, checked.stderr


def test_idle_memory_leaves_room_on_a_small_instance(host: Host) -> None:
    """A t2.micro has 1 GiB for Debian, the engine, the stack and the surge of a deploy."""
    containers = host.check_output("docker stats --no-stream --format json").splitlines()
    total = sum(_mib(json.loads(container)["MemUsage"].split(" / ")[0]) for container in containers)
    print(f"nginx and the idle replicas use {total:.1f} MiB")
    assert total <= MOST_MEMORY_MIB


def test_nginx_has_four_times_the_cpu_weight_of_a_replica(host: Host, stack: Stack) -> None:
    """The kernel's own figure counts: cgroup v2 has another file and another scale for it than v1."""
    look = "cat /sys/fs/cgroup/cpu.weight 2> /dev/null || cat /sys/fs/cgroup/cpu/cpu.shares"
    nginx, app = (stack.containers(name)[0].id for name in ("nginx", "app"))
    weights = [int(host.check_output(f"docker exec {one} sh -c '{look}'")) for one in (nginx, app)]
    assert weights[0] == 4 * weights[1]


def test_scaling_by_hand_is_balanced(host: Host, stack: Stack) -> None:
    """People scale on the machine when they are in a hurry, and nginx has to find the new replicas by itself."""
    scale = f"cd {stack.directory} && docker compose up --detach --scale app={{}}"
    more = stack.replicas + 2
    with stack.under_load() as growing:
        host.check_output(scale.format(more))
        stack.wait_for(f"{more} replicas answer", lambda: len(stack.ask(10 * more)) == more)
    answers = stack.ask(SHARE_REQUESTS)
    with stack.under_load() as shrinking:
        host.check_output(scale.format(stack.replicas))
    assert max(answers.values()) / min(answers.values()) <= MOST_UNEVEN
    assert_nothing_lost(growing)
    assert_nothing_lost(shrinking)
    assert len(stack.ask(30)) == stack.replicas


@pytest.mark.parametrize("process", ["docker-init", "gunicorn"])
def test_a_killed_replica_is_not_missed_and_comes_back(host: Host, stack: Stack, process: str) -> None:
    """A process may die of a bug or for want of memory; the others answer, and the engine starts it again."""
    victim = stack.containers("app")[0]
    processes = host.check_output(f"docker top {victim.id} -o pid,args").splitlines()[1:]
    pid = next(line.split()[0] for line in processes if process in line)
    with stack.under_load() as load:
        host.check_output(f"kill -9 {pid}")
        stack.wait_for("it answers again", lambda: victim.id in stack.ask(10 * stack.replicas))
    # An answer that was cut in the middle cannot be repeated by nginx; each client has one request in flight.
    report = load.report()
    assert report.planned - report.ok <= CLIENTS, report.examples
    assert report.ok > CLIENTS
    stack.wait_for(
        "it takes its share",
        lambda: (answers := stack.ask(SHARE_REQUESTS))[victim.id] * MOST_UNEVEN >= max(answers.values()),
    )


def test_a_reboot_brings_the_stack_back(host: Host, stack: Stack) -> None:
    """AWS restarts machines for its own reasons, and nobody is there to type a command."""
    booted = host.check_output("cat /proc/sys/kernel/random/boot_id; stat --format %Y /proc/1")
    stack.ec2.reboot_instances(InstanceIds=[stack.instance_id])
    stack.wait_for("the machine goes down", lambda: not _answers(stack))
    stack.wait_for("every replica answers", lambda: len(stack.ask(30)) == stack.replicas)
    assert host.check_output("cat /proc/sys/kernel/random/boot_id; stat --format %Y /proc/1") != booted
    assert len(stack.containers("app")) == stack.replicas


def test_the_boot_was_in_order(host: Host) -> None:
    """A cycle of units makes systemd leave one out, and only the journal says so: /tmp was no tmpfs once."""
    assert "ordering cycle" not in host.check_output("journalctl --boot --output=cat _PID=1")
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
    units = "grep --files-with-matches 'Ansible managed' /etc/systemd/system/*.service /etc/systemd/system/*.timer"
    ours = [Path(path).name for path in host.check_output(units).splitlines()]
    assert {"firewall.service", "host-swap.service"} <= set(ours)
    verified = host.run(f"systemd-analyze verify default.target {' '.join(ours)}")
    said = verified.stdout + verified.stderr
    assert "cycle" not in said, said
    assert not [line for line in said.splitlines() if any(unit in line for unit in ours)], said


def test_own_networks_are_no_martians(host: Host) -> None:
    """ARP in networks where the machine has no address once wrote six lines a minute into the kernel's log."""
    settings = host.check_output("grep --with-filename . /proc/sys/net/ipv4/conf/*/log_martians").splitlines()
    values = {Path(path).parent.name: value for path, value in (line.split(":") for line in settings)}
    assert values.pop("eth0") == "1"
    assert any(name.startswith("br-") for name in values)
    assert set(values.values()) == {"0"}


def _answers(stack: Stack) -> bool:
    try:
        return bool(stack.ask(1))
    except OSError:
        return False
