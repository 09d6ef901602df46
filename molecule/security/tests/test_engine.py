"""The CIS Docker Benchmark 1.6.0, as far as it is about the engine: sections 1, 2 and 3, each item by its number.

docs/security.md lists the items that are waived, with the reasons. Items about Swarm are left out because Swarm is not
used; those about files that Debian does not have (registry certificates, /etc/sysconfig) would pass without a meaning.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture(scope="module")
def info(host: Host) -> dict[str, Any]:
    """Ask the engine for its settings (``docker info``)."""
    answer: dict[str, Any] = json.loads(host.check_output("docker info --format json"))
    return answer


@pytest.fixture(scope="module")
def options(host: Host) -> dict[str, Any]:
    """Read the engine's daemon.json, and check that its command line holds no further options."""
    started = host.check_output("ps -o args= -C dockerd").split()
    assert started[1:] in (["-H", "fd://"], ["-H", "fd://", "--containerd=/run/containerd/containerd.sock"])
    content: dict[str, Any] = json.loads(host.file("/etc/docker/daemon.json").content_string)
    return content


def test_1_1_2_nobody_controls_the_engine_without_sudo(host: Host) -> None:
    """Whoever is in the group docker is root, and no log says so."""
    assert host.group("docker").members == []


def test_1_2_2_the_version_is_debians_newest(host: Host) -> None:
    """The newest one that apt knows is installed; its lists are renewed every day."""
    installed, newest = host.check_output(
        "apt-cache policy docker.io | sed -n 's/^  \\(Installed\\|Candidate\\): //p'"
    ).splitlines()
    assert installed == newest


def test_2_2_containers_on_the_default_network_do_not_reach_each_other(host: Host) -> None:
    """Containers that belong together have a network of their own, so nobody needs the default one to connect them."""
    (bridge,) = json.loads(host.check_output("docker network inspect bridge"))
    assert bridge["Options"]["com.docker.network.bridge.enable_icc"] == "false"


def test_2_3_and_2_4_logs_and_packet_filter_are_as_shipped(options: dict[str, Any]) -> None:
    """The log level is info, and published ports need Docker's rules."""
    assert options.keys().isdisjoint({"log-level", "debug", "iptables", "ip6tables"})


def test_2_5_no_registry_is_trusted_blindly(info: dict[str, Any]) -> None:
    """Only this machine's own address range is trusted, as with every engine."""
    assert info["RegistryConfig"]["InsecureRegistryCIDRs"] == ["127.0.0.0/8"]
    assert [name for name, one in info["RegistryConfig"]["IndexConfigs"].items() if not one["Secure"]] == []


def test_2_6_the_storage_driver_is_a_kept_one(info: dict[str, Any]) -> None:
    """Aufs, which the benchmark forbids, is gone from the kernel."""
    assert info["Driver"] == "overlay2"


def test_2_7_the_engine_does_not_listen_on_the_network(host: Host) -> None:
    """Whoever finds a TCP socket without client certificates is root, so the engine must have no TCP socket."""
    sockets = host.check_output("ss --listening --tcp --numeric --processes --no-header").splitlines()
    held = {line.split()[3].rpartition(":")[2] for line in sockets if "dockerd" in line}
    # Without a proxy it keeps the ports of containers taken itself.
    running = [json.loads(line) for line in host.check_output("docker ps --format json").splitlines()]
    published = re.findall(r":(\d+)->", " ".join(one["Ports"] for one in running))
    assert held == set(published)


def test_2_8_open_files_are_bounded(options: dict[str, Any]) -> None:
    """One container must not use up what all of them share."""
    assert options["default-ulimits"]["nofile"]["Hard"] == 16384


def test_2_10_and_2_11_control_group_and_size_are_as_shipped(options: dict[str, Any]) -> None:
    """With a parent group of their own, containers would escape the limits of the machine."""
    assert options.keys().isdisjoint({"cgroup-parent", "storage-opts"})


def test_2_14_no_container_gains_rights(options: dict[str, Any]) -> None:
    """No container gains them, through a setuid program for example, even where compose.yml does not say so."""
    assert options["no-new-privileges"] is True


def test_2_15_containers_outlive_the_engine(info: dict[str, Any]) -> None:
    """An unattended update restarts the engine at night."""
    assert info["LiveRestoreEnabled"] is True


def test_2_16_the_kernel_publishes_ports(host: Host) -> None:
    """A userland proxy for each port would hide the client's address."""
    assert host.run("pgrep docker-proxy").rc == 1


def test_2_17_and_2_18_system_calls_are_filtered_and_nothing_is_tried_out(info: dict[str, Any]) -> None:
    """The engine uses Docker's own seccomp profile and no experimental features."""
    assert "name=seccomp,profile=builtin" in info["SecurityOptions"]
    assert info["ExperimentalBuild"] is False


FILES = [
    ("3.1, 3.2", "/usr/lib/systemd/system/docker.service", "root:root", 0o644),
    ("3.3, 3.4", "/usr/lib/systemd/system/docker.socket", "root:root", 0o644),
    ("3.5, 3.6", "/etc/docker", "root:root", 0o755),
    ("3.15, 3.16", "/run/docker.sock", "root:docker", 0o660),
    ("3.17, 3.18", "/etc/docker/daemon.json", "root:root", 0o644),
    ("3.19, 3.20", "/etc/default/docker", "root:root", 0o644),
    ("3.23, 3.24", "/run/containerd/containerd.sock", "root:root", 0o660),
]
"""Item, file, owners, and the most that its mode may allow."""


def test_3_files_are_roots(host: Host) -> None:
    """Whoever can write the engine's files is root."""
    named = " ".join(path for _, path, _, _ in FILES)
    found = [line.split() for line in host.check_output(f"stat --format '%U:%G %a' {named}").splitlines()]
    assert len(found) == len(FILES)
    for (item, path, owners, most), (seen, mode) in zip(FILES, found, strict=True):
        assert seen == owners, (item, path)
        assert int(mode, 8) & ~most == 0, (item, path)


def test_logs_are_bounded(host: Host) -> None:
    """The benchmark does not ask for it, but a full disk is the commonest failure of a small machine."""
    ids = host.check_output("docker ps --quiet").split()
    assert ids
    logs = json.loads(host.check_output(f"docker inspect {' '.join(ids)}"))
    assert [one["HostConfig"]["LogConfig"]["Config"] for one in logs] == [{"max-file": "3", "max-size": "10m"}] * len(
        ids
    )
