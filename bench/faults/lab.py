"""The instance under faults: playbooks, versions of the app, and functions that run inside."""

from __future__ import annotations

import base64
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.app import INVENTORY, OTHER_SERVER, services
from bench.ec2 import client
from bench.load import Load
from bench.playbook import Outcome
from bench.project import ROOT
from bench.stack import RATE, Stack

METHODS = {"GET": 0.5, "POST": 0.5}
MORE_THAN_ENOUGH = 5000
"""Requests per second that nothing here can answer: every client then asks again as soon as it was answered."""
SIDE_PORT = 8090
SSH_PORT = 22
SHORTEST_S = 20
"""Seconds that a load lasts at least."""
RUN_TIMEOUT_S = 900
HERE = Path(__file__).parent


def command(playbook: str, *arguments: str) -> list[str]:
    """Write the command that runs playbooks/<playbook>.yml with further arguments."""
    given = extra(stack_services=services(ROOT / "app")) if OTHER_SERVER else []
    return ["ansible-playbook", f"playbooks/{playbook}.yml", "--inventory", INVENTORY, *given, *arguments]


def play(playbook: str, *arguments: str, **environment: str) -> Outcome:
    """Run playbooks/<playbook>.yml to its end, whether it succeeds or not, with further environment variables."""
    return Outcome(command(playbook, *arguments), RUN_TIMEOUT_S, **environment)


def extra(**variables: Any) -> list[str]:
    """Write the arguments of ansible-playbook that set extra variables."""
    return ["--extra-vars", json.dumps(variables)]


class Lab:
    """The instance, its stack, and the faults that can be made there."""

    _settled: object = None
    """How the instance looked when it was last as the inventory says."""

    def __init__(self, stack: Stack) -> None:
        """Take the instance of a stack."""
        self.stack = stack
        self.host = stack.host
        self.url = f"http://{stack.address}/"
        self._pool = ThreadPoolExecutor(4)

    def inside(self, function: str, *arguments: str) -> dict[str, float]:
        """Run a function of ``inside.py`` on the instance, and return what it printed."""
        # Encoded, because Ansible would take braces in a command for a template.
        text = base64.b64encode((HERE / "inside.py").read_bytes()).decode()
        words = shlex.join(["python3", "-", function, *arguments])
        found: dict[str, float] = json.loads(self.host.check_output(f"echo {text} | base64 -d | {words}"))
        return found

    def write(self, path: str, content: str) -> None:
        """Write a file on the instance, and the folder that it is in."""
        encoded = base64.b64encode(content.encode()).decode()
        where = shlex.quote(path)
        self.host.check_output(f"mkdir -p $(dirname {where}) && echo {encoded} | base64 -d > {where}")

    def beside(self, function: str, *arguments: str) -> Future[dict[str, float]]:
        """Run a function of ``inside.py`` on the instance while other things happen."""
        return self._pool.submit(self.inside, function, *arguments)

    @contextmanager
    def load(self, seconds: float = SHORTEST_S, rate: float = RATE) -> Iterator[Load]:
        """Send requests while a block runs, and after it until the load has lasted ``seconds``.

        ``rate`` is in requests per second. The load's report is there after the block.
        """
        with self.stack.under_load(rate) as load:
            yield load
            time.sleep(max(0.0, seconds - load.elapsed()))

    def ids(self) -> list[str]:
        """List the short container ids of the replicas, sorted."""
        return sorted(replica.id for replica in self.stack.containers("app"))

    def live(self) -> str:
        """Return a SHA-1 over the files of the live release, which identifies it."""
        files = "compose.yml nginx/nginx.conf"
        return str(self.host.check_output(f"cd {shlex.quote(self.stack.directory)} && cat {files} | sha1sum"))

    def nginx_is_current(self) -> bool:
        """Tell whether nginx runs the configuration that is in its file."""
        where = shlex.quote(self.stack.directory)
        runs = self.host.check_output(f"cd {where} && docker compose exec -T nginx balancer-status --always")
        file = self.host.check_output(f"sha1sum < {where}/nginx/nginx.conf").split()[0]
        return bool(json.loads(runs)["config_sha1"] == file)

    def settle(self) -> None:
        """Bring everything back to what the inventory says, and wait until it serves; each test begins with this."""
        if Lab._settled != self._state():
            run = play("deploy")
            assert run.ok, run.said[-3000:]
            # An earlier run of the tests may have left another number of replicas.
            self.stack.replicas = self.stack.wanted()
        self.stack.wait_for("all replicas answer", lambda: len(self.stack.ask(30)) == self.stack.replicas)
        Lab._settled = self._state()

    def _state(self) -> object:
        """Describe what a deploy would put right."""
        return self.live(), len(self.ids())

    def deploy(self, app: Path, **variables: Any) -> Outcome:
        """Deploy another folder in the place of app/, with further extra variables; the run must succeed."""
        run = play("deploy", *extra(stack_services=services(app), **variables))
        assert run.ok, run.said[-3000:]
        return run

    def leftovers(self) -> dict[str, Any]:
        """Describe everything that a run could leave behind.

        The facts are equal before and after a run that leaves nothing.
        """
        where = shlex.quote(self.stack.directory)
        listing = f"cd {where} && find . -path ./releases -prune -o -type f ! -name audit.log -print | sort"
        listed = self.host.check_output("docker ps --all --format json").splitlines()
        containers = [json.loads(line) for line in listed]
        images = self.host.check_output("docker images --quiet --filter dangling=true").splitlines()
        return {
            "files": self.host.check_output(listing).splitlines(),
            "containers": len(containers),
            "not running": [one["Names"] for one in containers if one["State"] != "running"],
            "dangling images": len(images),
            "releases without a mark": self.host.check_output(
                f"cd {where}/releases && for one in *; do [ -e $one/activated ] || echo $one; done"
            ).splitlines(),
            # This very command has one too.
            "temporary files": self.host.check_output(
                "ls -d /tmp/ansible_* /tmp/flask-fleet* /root/.ansible/tmp/* ~admin/.ansible/tmp/* 2> /dev/null"
                " | grep -v ansible.legacy.command || true"
            ).splitlines(),
        }

    @property
    def ec2(self) -> Any:
        """A client of the EC2 API."""
        return client("ec2")

    def throughput(self, url: str, clients: int, seconds: float, authorities: str = "") -> float:
        """Measure the requests per second that are answered when every client asks again as soon as it was answered.

        Args:
            url: Of the server.
            clients: Number of keep-alive connections.
            seconds: How long to measure.
            authorities: File with the certificates to trust with https; those of the system when empty.
        """
        with Load(
            url, rate=MORE_THAN_ENOUGH, clients=clients, methods=METHODS, timeout=2, authorities=authorities
        ) as load:
            time.sleep(seconds)
        report = load.report()
        return report.ok / max(seen.last for seen in report.containers.values())

    @contextmanager
    def beside_nginx(self, conf: str, port: int = SIDE_PORT) -> Iterator[str]:
        """Run a second nginx for the same replicas, without the options that harden containers, and yield its URL.

        ``conf`` is its nginx.conf, which listens on port 80; it is published at ``port``.
        """
        (nginx,) = self.stack.inspect("nginx")
        (network,) = self.stack.inspect("app")[0]["NetworkSettings"]["Networks"]
        (front,) = {*nginx["NetworkSettings"]["Networks"]} - {network}
        folder = "/tmp/faults-nginx"  # noqa: S108 (on the instance)
        self.write(f"{folder}/nginx.conf", conf)
        self.open_port(port)
        create = f"docker create --name beside-nginx --network {front} --publish {port}:80 --tmpfs /tmp:mode=1777"
        image = nginx["Config"]["Image"]
        side = self.host.check_output(f"{create} --volume {folder}:/etc/nginx/stack:ro {image}").strip()
        self.host.check_output(f"docker network connect {network} {side} && docker start {side}")
        try:
            yield f"http://{self.stack.address}:{port}/"
        finally:
            self.host.check_output(f"docker rm --force {side}; rm -r {folder}")

    def open_port(self, port: int) -> None:
        """Open a TCP port to this machine: in the security group, and in the firewall until that is loaded again."""
        (reservation,) = self.ec2.describe_instances(InstanceIds=[self.stack.instance_id])["Reservations"]
        group = reservation["Instances"][0]["SecurityGroups"][0]["GroupId"]
        known = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        by_port = {rule.get("FromPort"): rule for rule in known}
        if port not in by_port:
            # Behind a NAT this machine has another address than its own there, and SSH is open to that one.
            own = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": by_port[SSH_PORT]["IpRanges"]}
            self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[own])
        self.host.check_output(f"nft add element inet flask_fleet public {{ {port} }}")


def machine(stack: Stack) -> dict[str, Any]:
    """Describe the machine and the software that a run of the tests is made on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = int(re.findall(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)[0])
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kind = client("ec2").describe_instances(InstanceIds=[stack.instance_id])
    return {
        "commit": commit.stdout.strip(),
        "machine": f"{os.cpu_count()} CPUs {model[1] if model else platform.machine()}, {memory // 2**20} GiB",
        "kernel": platform.release(),
        "Python": sys.version.split()[0],
        "instance": kind["Reservations"][0]["Instances"][0]["InstanceType"],
        "engine": json.loads(stack.host.check_output("docker version --format json"))["Server"]["Version"],
        "replicas": stack.replicas,
        "server": services(ROOT / "app")[0]["server"],
    }
