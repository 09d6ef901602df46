"""No request is lost during a change, and a version that does not work never replaces one that does."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testinfra.host import Host

from bench.app import edit, services
from bench.faults.interruption import Point, Ssh, ways
from bench.playbook import command, playbook
from bench.stack import Stack, assert_nothing_lost
from tests.project import ROOT

FOLLOWS = "follows what is under way here: deploy"
PATIENCE_S = 10
"""Seconds that a version gets to become healthy; the shipped 60 s would only make the tests slower."""

STARVED_S = 40
"""Time for some health checks, which come every 10 s."""
TRICKLE = 5
"""Requests per second."""
MEASURED_S = 5
LOOP = "while :; do :; done"


def _playbook(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return playbook(f"playbooks/{name}.yml", *arguments).done


def _version_of(app: Path, **variables: str) -> list[str]:
    """Write the arguments that deploy another folder in the place of app/."""
    given = {"stack_services": services(app), "stack_start_seconds": PATIENCE_S}
    return ["--extra-vars", json.dumps(given | variables)]


def _deploy(app: Path, **variables: str) -> str:
    deployed = _playbook("deploy", *_version_of(app, **variables))
    assert deployed.returncode == 0, deployed.stdout
    return deployed.stdout


def _releases(stack: Stack) -> set[str]:
    return {container["Image"] for container in stack.inspect("app")}


def test_two_deploys_in_a_row_lose_no_request(host: Host, stack: Stack, app: Path) -> None:
    """The first replaces nginx as well, although only one container at a time can have its port."""
    seen = {frozenset(_releases(stack))}
    nginxes = [[one.id for one in stack.containers("nginx")]]
    said = ""
    with stack.under_load() as load:
        for number in range(2):
            edit(app / "hello/templates/index.html", "from Flask", f"from Flask {number}")
            said += _deploy(app, stack_nginx_memory="144m")
            seen.add(frozenset(_releases(stack)))
            nginxes.append([one.id for one in stack.containers("nginx")])
    assert_nothing_lost(load)
    assert nginxes[0] != nginxes[1] == nginxes[2]
    assert len(seen) == 3
    assert len(stack.containers("app")) == stack.replicas
    for step in ("takes traffic after", "drained and removed", "another new one serves while the old one"):
        assert step in said
    left = host.check_output("docker ps --all --quiet --filter name=standby; nft list tables | grep standby || true")
    assert left == ""


def test_a_broken_version_leaves_the_old_one_serving(host: Host, stack: Stack, app: Path) -> None:
    """People deploy mistakes: the run fails and says why, and nobody else notices."""
    before = {replica.id for replica in stack.containers("app")}
    edit(app / "wsgi.py", "app = create_app()", 'raise SystemExit("no database")')
    with stack.under_load() as load:
        deployed = _playbook("deploy", *_version_of(app))
    assert deployed.returncode != 0
    assert "no database" in deployed.stdout + deployed.stderr
    assert_nothing_lost(load)
    assert {replica.id for replica in stack.containers("app")} == before
    assert set(stack.ask(30)) == before
    assert host.check_output(f"cd {stack.directory}/releases && ls | wc -l") == str(len(_activated(host, stack)))


def _activated(host: Host, stack: Stack) -> list[str]:
    """List the kept releases, the live one first, then the one before it."""
    return str(host.check_output(f"cd {stack.directory}/releases && ls -t */activated")).splitlines()


def test_rollback_brings_the_release_before_without_a_lost_request(host: Host, stack: Stack) -> None:
    """The way back has to be as safe as the way forward, and needs no build."""
    before, kept = _releases(stack), _activated(host, stack)
    assert len(kept) > 2, "with one other release to choose from there is no wrong one"
    with stack.under_load() as load:
        back = _playbook("rollback")
        assert back.returncode == 0, back.stdout
    assert_nothing_lost(load)
    assert _activated(host, stack)[0] == kept[1]
    assert _releases(stack) != before
    assert len(stack.containers("app")) == stack.replicas


@contextmanager
def _starved(stack: Stack) -> Iterator[None]:
    """Leave the machine a tenth of its CPUs, like a t2.micro without credits: a neighbour weighs nine times more."""

    def docker(*words: str) -> str:
        return subprocess.run(["docker", *words], capture_output=True, check=True, text=True).stdout.strip()

    machine = docker("ps", "--quiet", "--filter", f"name={stack.instance_id}")
    cpus, image = docker("inspect", "--format", "{{.HostConfig.CpusetCpus}} {{.Image}}", machine).split()
    greedy = f"for one in $(seq $(nproc)); do timeout {3 * STARVED_S} bash -c '{LOOP}' & done; wait"
    weight = ["--cpuset-cpus", cpus, "--cpu-shares", str(9 * 1024), "--network", "none"]
    neighbour = docker("run", "--detach", "--rm", *weight, "--entrypoint", "bash", image, "-c", greedy)
    try:
        yield
    finally:
        docker("rm", "--force", neighbour)


def test_a_starved_machine_keeps_its_replicas(host: Host, stack: Stack) -> None:
    """A health check that is late for want of CPU must not end a server, whose restart would need even more CPU."""

    def seen() -> list[tuple[str, str, int]]:
        return sorted((one["Id"], one["State"]["StartedAt"], one["RestartCount"]) for one in stack.inspect("app"))

    before, began = seen(), host.check_output("date --utc +%FT%T")
    with _starved(stack), stack.under_load(TRICKLE) as load:
        said = host.check_output(f"bash -c 'TIMEFORMAT=%U; time timeout {MEASURED_S} bash -c \"{LOOP}\"' 2>&1 || true")
        time.sleep(STARVED_S)
        states = [one["State"] for one in stack.inspect("app") + stack.inspect("nginx")]
    assert float(said) / MEASURED_S < 0.2, "it had CPU"
    assert_nothing_lost(load)
    assert seen() == before
    assert {state["Health"]["Status"] for state in states} == {"healthy"}
    checks = [[one["ExitCode"] for one in state["Health"]["Log"] if one["Start"] > began] for state in states]
    assert all(codes and not any(codes) for codes in checks), checks


def _audit(host: Host, stack: Stack) -> list[str]:
    return str(host.check_output(f"cat {stack.directory}/audit.log")).splitlines()


def test_interrupted_deploy_goes_on_to_its_end(host: Host, stack: Stack, app: Path, tmp_path: Path) -> None:
    """The roll-out is a job of the machine: it completes without another run, and the next run finds nothing to do."""
    edit(app / "hello/templates/index.html", "from Flask", "from Flask after a cut")
    before, audit, ssh, log = _releases(stack), _audit(host, stack), Ssh(stack.instance_id), tmp_path / "deploy.log"
    (way,) = (one for one in ways(ssh) if one.name == "SSH cut")
    with stack.under_load() as load:
        with ssh.mended():
            assert way.run(Point("after its first step", step=1), log, _version_of(app)) != 0
        assert log.read_text().count("drained and removed") < stack.replicas, "it was not interrupted in time"
        # A person can see its end too.
        followed = host.run("flask-fleet follow")
    assert followed.rc == 0, followed.stderr
    assert followed.stdout.count("drained and removed") == stack.replicas
    assert_nothing_lost(load)
    assert _releases(stack).isdisjoint(before)
    assert len(stack.containers("app")) == stack.replicas
    (line,) = _audit(host, stack)[len(audit) :]
    assert " live by " in line
    assert not any(playbook("playbooks/deploy.yml", *_version_of(app)).changed.values())
    assert len(_audit(host, stack)) == len(audit) + 1


@contextmanager
def _begun(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a playbook beside a block, and kill it at the end of the block."""
    words = ["env", "ANSIBLE_FORCE_COLOR=false", *command(f"playbooks/{name}.yml", *arguments)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read a playbook's output up to the line with these words."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it never said {words!r}:\n{said}")


def test_next_deploy_follows_an_interrupted_one(host: Host, stack: Stack, app: Path, tmp_path: Path) -> None:
    """The next deploy shows all steps of the interrupted one, and takes over its result."""
    edit(app / "hello/templates/index.html", "from Flask", "from Flask, followed")
    (killed,) = (one for one in ways(Ssh(stack.instance_id)) if one.name == "SIGKILL")
    assert killed.run(Point("after its first step", step=1), tmp_path / "deploy.log", _version_of(app)) != 0
    job = json.loads(host.check_output(f"head --lines 1 {stack.directory}/job.jsonl"))
    # So that it is still under way when the next run comes.
    host.check_output(f"kill -s STOP {job['pid']}")
    try:
        with _begun("deploy", *_version_of(app)) as deploy:
            said = _read_until(deploy, f"{FOLLOWS} ")
            host.check_output(f"kill -s CONT {job['pid']}")
            said += deploy.communicate()[0]
    finally:
        host.run(f"kill -s CONT {job['pid']}")
    assert deploy.returncode == 0, said
    assert f"{job['what']} by {job['who']}, begun at 20" in said
    assert said.count("drained and removed") == stack.replicas
    assert set(re.findall(r"^i-.* changed=(\d+)", said, re.MULTILINE)) == {"0"}


def test_cancelled_deploy_goes_back(host: Host, stack: Stack, app: Path) -> None:
    """A person on the machine can cancel what somebody else began; the release before serves on."""
    edit(app / "hello/templates/index.html", "from Flask", "from Flask, cancelled")
    before, live = {replica.id for replica in stack.containers("app")}, _activated(host, stack)[0]
    with stack.under_load() as load, _begun("deploy", *_version_of(app)) as deploy:
        said = _read_until(deploy, "started ")
        assert "Cancelled: deploy" in host.check_output("flask-fleet cancel")
        said += deploy.communicate()[0]
    assert deploy.returncode != 0
    assert "It was cancelled." in said
    assert_nothing_lost(load)
    assert {replica.id for replica in stack.containers("app")} == before
    assert _activated(host, stack)[0] == live
    assert " failed by " in _audit(host, stack)[-1]
    assert "Nothing is under way here." in host.run("flask-fleet cancel").stderr


def test_maintenance_shows_a_page_and_the_health_stays(stack: Stack) -> None:
    """Visitors are told to come back, and a monitor that asks for the health raises no alarm."""
    assert _playbook("maintenance", "--extra-vars", "maintenance=true").returncode == 0
    closed, healthy = stack.get("/"), stack.get("/healthz")
    assert _playbook("maintenance", "--extra-vars", "maintenance=false").returncode == 0
    assert (closed.status, healthy.status) == (503, 200)
    assert closed.headers["Retry-After"]
    assert "Back soon" in closed.text
    assert stack.get("/").status == 200
