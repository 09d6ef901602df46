"""Runs on the instance, as root, with Debian's Python: causes a fault and polls the balancer many times a second.

It is sent as text: ``python3 - FUNCTION ARGUMENT…``, and prints JSON. Polling from the controller would take a second
each time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

POLL_S = 0.1
SLOW_POLL_S = 0.5
STATUS_PORT = 8081
NEVER_S = 9999.0
"""Stands for an event that did not happen in time; above every limit."""
LABEL = "com.docker.compose.service"


def docker(*arguments: str) -> str:
    """Run docker and return its output."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def inspect(*containers: str) -> list[dict[str, Any]]:
    """Inspect containers."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", *containers))
    return found


def running(service: str) -> list[str]:
    """List the ids of a service's running containers."""
    return docker("ps", "-q", "--no-trunc", "--filter", f"label={LABEL}={service}").split()


def address(container: str) -> str:
    """Return a container's address."""
    networks = inspect(container)[0]["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


def enter_nginx() -> None:
    """Enter nginx's network, because its status page is on its own loopback."""
    pid = inspect(running("nginx")[0])[0]["State"]["Pid"]
    with Path(f"/proc/{pid}/ns/net").open() as network:
        os.setns(network.fileno())  # type: ignore[attr-defined, unused-ignore]  # Python 3.12


def balancer(service: str = "app") -> dict[str, Any]:
    """Ask nginx what it knows of a service's replicas, by address."""
    connection = http.client.HTTPConnection("127.0.0.1", STATUS_PORT, timeout=2)
    try:
        connection.request("GET", "/")
        replicas: dict[str, Any] = json.loads(connection.getresponse().read())["services"][service]["replicas"]
    finally:
        connection.close()
    # An empty table of Lua's is a list in JSON.
    return dict(replicas or {})


def ready() -> set[str]:
    """List the addresses that get requests."""
    try:
        return {known for known, replica in balancer().items() if replica["ready"]}
    except (OSError, http.client.HTTPException):
        return set()


def until(condition: Callable[[], bool], patience: float, pause: float = POLL_S) -> float:
    """Wait for a condition; return the seconds it took, or NEVER_S when it took too long."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience:
            return NEVER_S
        time.sleep(pause)
    return round(time.monotonic() - began, 2)


def processes(container: str) -> list[int]:
    """List a container's processes."""
    return [int(line) for line in docker("top", container, "-eo", "pid").split()[1:]]


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes, except to those that have ended meanwhile."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def freeze(container: str, seconds: str) -> dict[str, float]:
    """Stop all processes of a replica for a while; return when the balancer noticed the stop and the return."""
    pids, where = processes(container), address(container)
    enter_nginx()
    send(signal.SIGSTOP, pids)
    began = time.monotonic()
    out = until(lambda: where not in ready(), patience=float(seconds))
    time.sleep(max(0.0, float(seconds) - (time.monotonic() - began)))
    send(signal.SIGCONT, pids)
    return {"out": out, "back": until(lambda: where in ready(), patience=30)}


def freeze_for_good(container: str, patience: str) -> dict[str, float]:
    """Stop all processes of a replica for good; return how long it took until as many replicas as before were ready."""
    pids, where, wanted = processes(container), address(container), len(running("app"))
    enter_nginx()
    send(signal.SIGSTOP, pids)
    began = time.monotonic()
    out = until(lambda: where not in ready(), patience=10)
    if until(lambda: len(ready()) >= wanted, float(patience), SLOW_POLL_S) == NEVER_S:
        send(signal.SIGCONT, pids)
        return {"out": out, "replaced": NEVER_S}
    return {"out": out, "replaced": round(time.monotonic() - began, 2)}


def kill(container: str) -> dict[str, float]:
    """Kill the processes of a replica; return when the balancer noticed, and when it was ready again."""
    pids, where = processes(container), address(container)
    enter_nginx()
    before = len(ready())
    send(signal.SIGKILL, pids)
    began = time.monotonic()
    # Restarted sooner than the balancer asks again, it is never missed.
    out = until(lambda: where not in ready(), patience=3)
    # It may come back with another address.
    until(lambda: len(ready()) >= before, patience=60)
    return {"out": out, "back": round(time.monotonic() - began, 2)}


def kill_shim(container: str, held_s: str) -> dict[str, float]:
    """Kill the containerd-shim of a container, and delay the cleanup by ``held_s`` seconds, as a busy machine might.

    Returns:
        ``held``: how many processes of the cleanup were held up. ``back``: seconds until the container was started
        again and healthy, ``NEVER_S`` if it never was. ``left``: how many of its old processes still run then.
    """
    old, before = processes(container), inspect(container)[0]["State"]["StartedAt"]
    send(signal.SIGKILL, _commands("containerd-shim", container))
    began = time.monotonic()
    held = _hold(float(held_s), "containerd-shim", container, "delete")

    def back() -> bool:
        state = inspect(container)[0]["State"]
        return bool(state["StartedAt"] != before and state["Health"]["Status"] == "healthy")

    until(back, patience=150)
    return {
        "held": held,
        "back": round(time.monotonic() - began, 2) if back() else NEVER_S,
        "left": sum(Path(f"/proc/{pid}").exists() for pid in old),
    }


def _hold(seconds: float, *words: str) -> int:
    """Stop the processes with these words in their command, as soon as there is one, for some seconds; count them."""
    held: list[int] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not held:
        held = _commands(*words)
    send(signal.SIGSTOP, held)
    time.sleep(max(0.0, deadline - time.monotonic()))
    send(signal.SIGCONT, held)
    return len(held)


def _commands(*words: str) -> list[int]:
    """List the processes whose command has all of these words."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_text()
        except OSError:
            continue
        if command.startswith("/usr/bin/") and all(word in command for word in words):
            found.append(int(file.parent.name))
    return found


def killed_for_memory(container: str) -> dict[str, float]:
    """Count the processes of a container that the kernel ended because its memory was used up."""
    (full,) = docker("ps", "-q", "--no-trunc", "--filter", f"id={container}").split()
    files = [*Path("/sys/fs/cgroup").rglob(f"*{full}*/memory.oom_control")]
    files = files or [*Path("/sys/fs/cgroup").rglob(f"*{full}*/memory.events")]
    lines = [line.split() for line in files[0].read_text().splitlines()]
    return {"killed": sum(int(count) for name, count in lines if name == "oom_kill")}


def restart_all() -> dict[str, float]:
    """Restart all replicas at once; return when the first of them passed its health check, as Unix time."""
    names = running("app")
    restarts = [subprocess.Popen(["docker", "restart", name], stdout=subprocess.DEVNULL) for name in names]
    for restart in restarts:
        restart.wait()
    until(lambda: all(_passed(one) for one in inspect(*names)), patience=60, pause=SLOW_POLL_S)
    passed = [end for one in inspect(*names) for end in _passed(one)]
    # Nanoseconds and "Z" or an offset: `date` reads all of what the engine writes.
    times = [float(subprocess.check_output(["date", "-d", one, "+%s.%N"], text=True)) for one in passed]
    return {"first healthy": min(times, default=0.0)}


def _passed(container: dict[str, Any]) -> list[str]:
    """List the times at which a container passed its health check since its last start."""
    state = container["State"]
    return [one["End"] for one in state["Health"]["Log"] if one["ExitCode"] == 0 and one["Start"] > state["StartedAt"]]


def cpu(*containers: str) -> dict[str, float]:
    """Add up the CPU time, in seconds, of containers that are given by their full ids."""
    return {"seconds": sum(_cpu(one) for one in containers)}


def _cpu(container: str) -> float:
    old = [*Path("/sys/fs/cgroup").rglob(f"*{container}*/cpuacct.usage")]
    if old:
        return int(old[0].read_text()) / 1e9
    new = [*Path("/sys/fs/cgroup").rglob(f"*{container}*/cpu.stat")]
    return int(new[0].read_text().split()[1]) / 1e6


def counts(directory: str) -> dict[str, float]:
    """Count what could pile up on the machine, and empty the build cache, whose size the engine limits itself."""
    all_of_it = _disk(directory)
    docker("builder", "prune", "--force")
    engine = int(Path("/var/run/docker.pid").read_text())
    workers = [pid for one in running("nginx") for pid in processes(one)]
    folders = [path for path in Path(directory).rglob("*") if path.is_file()]
    return {
        "containers": len(docker("ps", "--all", "-q").split()),
        "images": len(docker("images", "-q").split()),
        "dangling images": len(docker("images", "-q", "--filter", "dangling=true").split()),
        "networks": len(docker("network", "ls", "-q").split()),
        "volumes": len(docker("volume", "ls", "-q").split()),
        "releases": len(list((Path(directory) / "releases").iterdir())),
        "files of the stack": len(folders),
        "layers": len(list(Path("/var/lib/docker/overlay2").iterdir())),
        "disk (MiB)": _disk(directory),
        "build cache (MiB)": all_of_it - _disk(directory),
        "open files of dockerd": len(os.listdir(f"/proc/{engine}/fd")),  # noqa: PTH208
        "open files of nginx": max(len(os.listdir(f"/proc/{pid}/fd")) for pid in workers),  # noqa: PTH208
        "memory of nginx (MiB)": sum(_resident(pid) for pid in workers) / 1024,
        "memory of dockerd (MiB)": _resident(engine) / 1024,
        "processes": len([entry for entry in os.listdir("/proc") if entry.isdigit()]),  # noqa: PTH208
    }


def _disk(directory: str) -> float:
    """Return the MiB that the engine and the stack's folder take."""
    return sum(_blocks(path) for path in ("/var/lib/docker", directory)) / 2048


def _blocks(folder: str) -> int:
    """Return the 512-byte blocks that a folder takes, without mounted containers."""
    # Files of running containers come and go while du looks.
    done = subprocess.run(["du", "-sx", "-B512", folder], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


def _resident(pid: int) -> int:
    """Return the private memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss:",)))


def memory(stop: str) -> dict[str, float]:
    """Watch the memory of the whole machine until a file appears, in MiB; what the kernel can drop is not counted."""
    peak, killed = 0, _killed()
    while not Path(stop).exists():
        peak = max(peak, _used())
        time.sleep(POLL_S)
    Path(stop).unlink()
    return {"peak": peak / 2**20, "limit": _limit() / 2**20, "killed": _killed() - killed}


def _group() -> Path:
    old = Path("/sys/fs/cgroup/memory")
    return old if old.exists() else Path("/sys/fs/cgroup")


def _statistics(name: str) -> dict[str, int]:
    lines = (_group() / name).read_text().splitlines()
    return {key: int(value) for key, value in (line.split()[:2] for line in lines)}


def _used() -> int:
    """Return the memory that processes hold: anonymous memory, shared memory included."""
    known = _statistics("memory.stat")
    if "total_rss" in known:
        return known["total_rss"] + known.get("total_shmem", 0)
    return known["anon"] + known["shmem"] + known.get("kernel", 0)


def _limit() -> int:
    for name in ("memory.limit_in_bytes", "memory.max"):
        file = _group() / name
        if file.exists() and file.read_text().strip() != "max":
            return int(file.read_text())
    return 0


def _killed() -> int:
    name = "memory.oom_control" if (_group() / "memory.oom_control").exists() else "memory.events"
    return _statistics(name).get("oom_kill", 0)


SMALL = Path("/mnt/small")
SMALL_MIB = 1536
MOVED = {"docker": "/var/lib/docker", "stack": "/opt/flask-fleet"}
"""The folders that are moved to the small disk, by their folder there."""


def shell(script: str) -> str:
    """Run a shell script and return its output."""
    return subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True).stdout


def small_disk() -> dict[str, float]:
    """Put the engine's data and the stack's files on a disk of their own, so small that it can be filled."""
    SMALL.mkdir(exist_ok=True)
    # In a container, device files are not made by the kernel.
    shell("command -v mkfs.ext4 || apt-get install --yes e2fsprogs")
    shell("[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237")
    shell("for n in $(seq 0 15); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done")
    shell("cd /opt/flask-fleet && docker compose down && systemctl stop docker.socket docker containerd")
    shell(f"truncate -s {SMALL_MIB}M /small.img && mkfs.ext4 -qFm 0 /small.img && mount -o loop /small.img {SMALL}")
    for name, folder in MOVED.items():
        shell(f"mkdir {SMALL}/{name} && cp -a {folder}/. {SMALL}/{name}/ && mount --bind {SMALL}/{name} {folder}")
    shell("systemctl start docker")
    return {"free (MiB)": _free_mib()}


def whole_disk() -> dict[str, float]:
    """Put everything back on the large disk."""
    shell("cd /opt/flask-fleet && docker compose down; systemctl stop docker.socket docker containerd")
    shell(f"umount {' '.join(MOVED.values())} {SMALL} && rm /small.img && systemctl start docker")
    return {}


def fill(leave_mib: str) -> dict[str, float]:
    """Fill the small disk until so many MiB are left."""
    (SMALL / "fill").unlink(missing_ok=True)
    size = max(1, _free_mib() - int(leave_mib))
    shell(f"fallocate -l {size}M {SMALL}/fill || true; [ {leave_mib} -gt 0 ] || cat /dev/zero > {SMALL}/rest || true")
    return {"free (MiB)": _free_mib()}


def unfill() -> dict[str, float]:
    """Make room on the small disk again."""
    for name in ("fill", "rest"):
        (SMALL / name).unlink(missing_ok=True)
    return {"free (MiB)": _free_mib()}


def _free_mib() -> int:
    disk = os.statvfs(SMALL)
    return disk.f_bavail * disk.f_frsize // 2**20


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
