"""The CIS Docker Benchmark 1.6, sections 4 (images) and 5 (containers), item by item, for all containers of the stack.

Where an item asks for a person's judgement, a comment in its check says what is tested instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from bench.stack import Stack

WAIVED = {
    "5.2": "the rehearsal's kernel has no AppArmor; where there is one, Docker's own profile is asked for",
    "5.8": "a web server is asked at port 80; nginx holds no capability for it",
    "5.14": "nginx is for all addresses of the machine; stack_address names one",
    "5.15": "on-failure does not come back after a reboot; unless-stopped does, and a crash loop slows itself down",
}
"""Items that are not met, and why."""

UNNECESSARY = ("cc", "curl", "gcc", "make", "nc", "pip", "scp", "ssh", "sshd", "sudo", "telnet", "wget")
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (what is looked for)
SECRET = re.compile(r"(?i)(password|passwd|secret|token|api_?key|private_?key)[a-z_]*=.")
HOST_FOLDERS = ("/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr", "/var/lib/docker", "/var/run")

LOOK = r"""
ids=$(docker ps --quiet --no-trunc --filter label=com.docker.compose.project)
for id in $ids; do
    docker top "$id" -eo pid | tail -n +2 | while read -r pid; do
        grep -E '^(Uid|CapPrm|CapEff|CapAmb|NoNewPrivs|Seccomp):' "/proc/$pid/status" | tr '\n\t' '  '
        echo "$id $(tr '\0' ' ' < "/proc/$pid/cmdline")"
    done
done
"""
SET_ID = "find / -xdev -type f -perm /6000; for one in {}; do command -v $one; done"


@dataclass(frozen=True)
class Process:
    """A process of a container, as the kernel sees it."""

    container: str
    user: int
    capabilities: int
    no_new_privileges: bool
    filtered: bool
    command: str


@dataclass(frozen=True)
class Facts:
    """The facts that the engine and the kernel report; images are keyed by reference."""

    containers: list[dict[str, Any]]
    images: dict[str, dict[str, Any]]
    history: dict[str, list[str]]
    processes: list[Process]
    found: dict[str, list[str]]
    engine: dict[str, Any]
    composed: dict[str, dict[str, Any]]

    def of_containers(self, wrong: Callable[[dict[str, Any]], object]) -> list[str]:
        """Name the containers that something is wrong with."""
        return [f"{one['Name']}: {what}" for one in self.containers if (what := wrong(one))]

    def of_images(self, wrong: Callable[[dict[str, Any]], object]) -> list[str]:
        """Name the images that something is wrong with."""
        return [f"{name}: {what}" for name, one in self.images.items() if (what := wrong(one))]

    def of_layers(self, pattern: str) -> list[str]:
        """List the steps of the images' builds that match."""
        steps = [(name, step) for name, every in self.history.items() for step in every]
        return [f"{name}: {step}" for name, step in steps if re.search(pattern, step)]


def _processes(listed: str) -> Iterator[Process]:
    pattern = (
        r"Uid: *(\d+) .*CapPrm: (\w+) +CapEff: (\w+) +CapAmb: (\w+) +NoNewPrivs: (\d) +Seccomp: (\d) +(\w{64}) (.*)"
    )
    for line in listed.splitlines():
        match = re.search(pattern, line)
        # A health check may have ended between two commands.
        if match:
            user, *held, confined, mode, container, command = match.groups()
            sets = [int(one, 16) for one in held]
            yield Process(container, int(user), max(sets), confined == "1", mode == "2", command)


@pytest.fixture(scope="module")
def facts(host: Host, stack: Stack) -> Facts:
    """Collect all facts once, because each question to the instance takes a second."""
    containers = [*stack.inspect("nginx"), *stack.inspect("app")]
    images = {one["Config"]["Image"]: one["Image"] for one in containers}
    listed = json.loads(host.check_output(f"docker image inspect {' '.join(images.values())}"))
    history = "docker history --no-trunc --format json {}"
    looking = SET_ID.format(" ".join(UNNECESSARY))
    by_image = {one["Config"]["Image"]: one["Id"] for one in containers}
    return Facts(
        containers,
        dict(zip(images, listed, strict=True)),
        {
            name: [json.loads(line)["CreatedBy"] for line in host.check_output(history.format(one)).splitlines()]
            for name, one in images.items()
        },
        list(_processes(host.check_output(LOOK))),
        {name: host.run(f"docker exec {one} sh -c '{looking}'").stdout.split() for name, one in by_image.items()},
        json.loads(host.check_output("docker info --format json")),
        json.loads(host.check_output(f"cd {stack.directory} && docker compose config --format json"))["services"],
    )


Check = Callable[[Facts], list[str]]
CHECKS: dict[str, tuple[str, Check]] = {}


def item(number: str, says: str) -> Callable[[Check], Check]:
    """Register a check under the benchmark's number; the check returns what is wrong."""

    def register(check: Check) -> Check:
        CHECKS[number] = says, check
        return check

    return register


def _is_root(user: str) -> bool:
    return user.partition(":")[0] in ("", "0", "root")


@item("4.1", "a user for the container has been created")
def _(facts: Facts) -> list[str]:
    named = facts.of_images(lambda one: _is_root(one["Config"].get("User", "")) and "runs as root")
    return named + [f"{one.command}: root" for one in facts.processes if one.user == 0]


@item("4.2", "containers use only trusted base images")
def _(facts: Facts) -> list[str]:
    """Images made here of Debian's signed packages are trusted; one that was pulled has a digest of its registry."""
    return facts.of_images(lambda one: one["RepoDigests"])


@item("4.3", "unnecessary packages are not installed in the container")
def _(facts: Facts) -> list[str]:
    return [path for found in facts.found.values() for path in found if path.rsplit("/", 1)[1] in UNNECESSARY]


@item("4.5", "content trust is enabled")
def _(facts: Facts) -> list[str]:
    """No registry has signatures to check, so an image that is missing here has to be an error."""
    return [name for name, one in facts.composed.items() if one.get("pull_policy") != "never"]


@item("4.6", "HEALTHCHECK instructions have been added to container images")
def _(facts: Facts) -> list[str]:
    return facts.of_images(lambda one: not one["Config"].get("Healthcheck", {}).get("Test") and "no health check")


@item("4.7", "update instructions are not used alone in Dockerfiles")
def _(facts: Facts) -> list[str]:
    return facts.of_layers(r"^(?!.*apt-get install).*apt-get update")


@item("4.8", "setuid and setgid permissions are removed")
def _(facts: Facts) -> list[str]:
    return [path for found in facts.found.values() for path in found if path.rsplit("/", 1)[1] not in UNNECESSARY]


@item("4.9", "COPY is used instead of ADD")
def _(facts: Facts) -> list[str]:
    return facts.of_layers(r"^ADD ")


@item("4.10", "secrets are not stored in Dockerfiles")
def _(facts: Facts) -> list[str]:
    variables = facts.of_images(lambda one: [name for name in one["Config"]["Env"] if SECRET.match(name)])
    return variables + facts.of_layers(SECRET.pattern.removeprefix("(?i)"))


@item("4.11", "only verified packages are installed")
def _(facts: Facts) -> list[str]:
    pip = r"pip install(?!.*--require-hashes)|pip .* install(?!.*--require-hashes)"
    return facts.of_layers(rf"{pip}|--allow-unauthenticated|trusted=yes|--trusted.host|curl |wget ")


@item("5.1", "swarm mode is not enabled, if not needed")
def _(facts: Facts) -> list[str]:
    state = facts.engine["Swarm"]["LocalNodeState"]
    return [] if state == "inactive" else [state]


@item("5.2", "an AppArmor profile is enabled")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["AppArmorProfile"] in ("", "unconfined") and "no AppArmor profile")


@item("5.3", "SELinux security options are set, if applicable")
def _(facts: Facts) -> list[str]:
    """Debian confines containers with AppArmor; where SELinux is on, nothing may switch its labels off."""
    return facts.of_containers(lambda one: "label=disable" in (one["HostConfig"]["SecurityOpt"] or []) and "unlabelled")


@item("5.4", "Linux kernel capabilities are restricted within containers")
def _(facts: Facts) -> list[str]:
    """Docker's own set passes the benchmark; here no process has any capability, not even a health check."""
    kept = facts.of_containers(lambda one: one["HostConfig"]["CapDrop"] != ["ALL"] and "capabilities are left")
    added = facts.of_containers(lambda one: one["HostConfig"]["CapAdd"])
    return kept + added + [f"{one.command}: {one.capabilities:x}" for one in facts.processes if one.capabilities]


@item("5.5", "privileged containers are not used")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["Privileged"] and "privileged")


@item("5.6", "sensitive host system directories are not mounted")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(
        lambda one: [
            mount["Source"]
            for mount in one["Mounts"]
            if mount["RW"] or mount["Source"] == "/" or mount["Source"].startswith(HOST_FOLDERS)
        ]
    )


@item("5.7", "sshd is not run within containers")
def _(facts: Facts) -> list[str]:
    return [one.command for one in facts.processes if "sshd" in one.command]


def _ports(container: dict[str, Any]) -> list[dict[str, str]]:
    published = container["NetworkSettings"]["Ports"] or {}
    return [one for many in published.values() for one in many or []]


@item("5.8", "privileged ports are not mapped within containers")
def _(facts: Facts) -> list[str]:
    lowest = 1024
    return facts.of_containers(lambda one: [port for port in _ports(one) if int(port["HostPort"]) < lowest])


@item("5.9", "only needed ports are open on the container")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: "nginx" not in one["Name"] and _ports(one))


@item("5.10", "the host's network namespace is not shared")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["NetworkMode"] == "host" and "shared")


@item("5.11", "the memory usage for containers is limited")
def _(facts: Facts) -> list[str]:
    def wrong(one: dict[str, Any]) -> object:
        limits = one["HostConfig"]
        return not limits["Memory"] == limits["MemorySwap"] > 0 and (limits["Memory"], limits["MemorySwap"])

    return facts.of_containers(wrong)


@item("5.12", "CPU priority is set appropriately on containers")
def _(facts: Facts) -> list[str]:
    """Ask for a limit or a weight: a replica has a limit, and nginx, which must not wait for CPU, a weight."""
    return facts.of_containers(
        lambda one: not one["HostConfig"]["NanoCpus"] and one["HostConfig"]["CpuShares"] in (0, 1024) and "no priority"
    )


@item("5.13", "the container's root filesystem is mounted as read only")
def _(facts: Facts) -> list[str]:
    def wrong(one: dict[str, Any]) -> object:
        limits = one["HostConfig"]
        writable = {folder: options.split(",") for folder, options in (limits["Tmpfs"] or {}).items()}
        wide = [
            folder
            for folder, options in writable.items()
            if not {"noexec", "nosuid", "nodev"} <= set(options) or not any("size=" in option for option in options)
        ]
        return (not limits["ReadonlyRootfs"] and "writable") or wide

    return facts.of_containers(wrong)


@item("5.14", "incoming container traffic is bound to a specific host interface")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: [port for port in _ports(one) if port["HostIp"] in EVERYWHERE])


@item("5.15", "the on-failure container restart policy is set to 5")
def _(facts: Facts) -> list[str]:
    policy = {"Name": "on-failure", "MaximumRetryCount": 5}
    return facts.of_containers(lambda one: one["HostConfig"]["RestartPolicy"] != policy and "another policy")


@item("5.16", "the host's process namespace is not shared")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["PidMode"])


@item("5.17", "the host's IPC namespace is not shared")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["IpcMode"] not in ("private", "none") and "shared")


@item("5.18", "host devices are not directly exposed to containers")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["Devices"] or one["HostConfig"]["DeviceCgroupRules"])


@item("5.19", "the default ulimit is overwritten at runtime if needed")
def _(facts: Facts) -> list[str]:
    """Each container needs enough files for its connections, and must not dump its memory to the disk in a crash."""

    def wrong(one: dict[str, Any]) -> object:
        limits = {limit["Name"]: limit["Hard"] for limit in one["HostConfig"]["Ulimits"] or []}
        return (limits.get("core") != 0 or not limits.get("nofile")) and str(limits)

    return facts.of_containers(wrong)


@item("5.20", "mount propagation mode is not set to shared")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: [mount for mount in one["Mounts"] if "shared" in mount["Propagation"]])


@item("5.21", "the host's UTS namespace is not shared")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["UTSMode"])


@item("5.22", "the default seccomp profile is not disabled")
def _(facts: Facts) -> list[str]:
    return [one.command for one in facts.processes if not one.filtered]


@item("5.23", "docker exec commands are not used with the privileged option")
def _(facts: Facts) -> list[str]:
    """Look for capabilities, which a privileged command by exec would hold: it is a process like any other."""
    return [one.command for one in facts.processes if one.capabilities]


@item("5.24", "docker exec commands are not used with the user=root option")
def _(facts: Facts) -> list[str]:
    return [one.command for one in facts.processes if one.user == 0]


@item("5.25", "cgroup usage is confirmed")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["CgroupParent"])


@item("5.26", "the container is restricted from acquiring additional privileges")
def _(facts: Facts) -> list[str]:
    return [one.command for one in facts.processes if not one.no_new_privileges]


@item("5.27", "container health is checked at runtime")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["State"].get("Health", {}).get("Status") != "healthy" and "not healthy")


@item("5.28", "Docker commands always make use of the latest version of their image")
def _(facts: Facts) -> list[str]:
    """Expect a tag that is a hash of what the image was built from, and that still means the image that runs."""

    def wrong(one: dict[str, Any]) -> object:
        name = one["Config"]["Image"]
        fixed = re.search(r":[0-9a-f]{12}$", name) and facts.images[name]["Id"] == one["Image"]
        return not fixed and name

    return facts.of_containers(wrong) + facts.of_images(lambda one: not one["RepoTags"] and "its tag is another's")


@item("5.29", "the PIDs cgroup limit is used")
def _(facts: Facts) -> list[str]:
    most = 100
    return facts.of_containers(lambda one: not 0 < (one["HostConfig"]["PidsLimit"] or 0) <= most and "no limit")


@item("5.30", "Docker's default bridge docker0 is not used")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: "bridge" in one["NetworkSettings"]["Networks"] and "default bridge")


@item("5.31", "the host's user namespaces are not shared")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: one["HostConfig"]["UsernsMode"] == "host" and "shared")


@item("5.32", "the Docker socket is not mounted inside any containers")
def _(facts: Facts) -> list[str]:
    return facts.of_containers(lambda one: [mount for mount in one["Mounts"] if "docker.sock" in mount["Source"]])


NAMES = [f"{number} {says}" for number, (says, _) in CHECKS.items()]


@pytest.mark.parametrize("number", CHECKS, ids=NAMES)
def test_cis(facts: Facts, number: str) -> None:
    """An item that holds must not have a waiver, and every other one must."""
    wrong = CHECKS[number][1](facts)
    confined = number == "5.2" and "name=apparmor" in facts.engine["SecurityOptions"]
    if number not in WAIVED or confined:
        assert wrong == []
    else:
        assert wrong != [], f"met by now, so it needs no waiver: {WAIVED[number]}"


def test_facts_are_about_all_of_the_stack(facts: Facts, stack: Stack) -> None:
    """Without containers and processes every check would pass."""
    assert len(facts.containers) == stack.replicas + 1
    assert {one.container for one in facts.processes} == {one["Id"] for one in facts.containers}
    assert len(facts.images) == len(facts.history) == len(facts.found) == 2
    assert len(CHECKS) == 42
    assert len(WAIVED) <= 4


def test_logs_are_rotated(facts: Facts) -> None:
    """The benchmark does not ask for it, but a full disk stops everything."""
    limits = [one["HostConfig"]["LogConfig"]["Config"] for one in facts.containers]
    assert {(one.get("max-size"), one.get("max-file")) for one in limits} == {("10m", "3")}
