"""Every request reaches its service, and no service gets those of another."""

from __future__ import annotations

import json
import shlex
import socket

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

from bench.stack import Stack
from preflight.own_address import own_address
from tests.live_services import PROBES, SERVICES, find

REQUESTS = 60
MOST_UNEVEN = 1.10
PROCESSES = {"gunicorn": "gunicorn", "uwsgi": "uwsgi-core", "granian": "granian"}


@pytest.mark.parametrize("name", SERVICES)
def test_requests_reach_all_replicas_of_the_service_and_no_other(stack: Stack, name: str) -> None:
    """Services are chosen by path or by host, and each is scaled by its own number."""
    answers = find(stack, name).ask(REQUESTS)
    replicas = stack.containers(name)
    assert set(answers) == {replica.id for replica in replicas}
    assert len(replicas) == SERVICES[name]["replicas"]
    assert max(answers.values()) / min(answers.values()) <= MOST_UNEVEN


@pytest.mark.parametrize("name", SERVICES)
def test_service_runs_in_its_server_and_nginx_speaks_its_protocol(host: Host, stack: Stack, name: str) -> None:
    """The answer, the app and nginx's log have the same request id, and the log has the replica's port."""
    server = SERVICES[name].get("server", "gunicorn")
    assert PROCESSES[server] in host.check_output(f"docker top {stack.containers(name)[0].id} -o pid,args")
    answer = find(stack, name).get("/whoami")
    request = answer.headers["X-Request-ID"]
    logged = stack.logged(request)
    assert (logged["service"], logged["status"]) == (name, 200)
    assert logged["upstream"].rpartition(":")[2] == ("8080" if server == "uwsgi" else "5000")
    if name in PROBES:
        assert json.loads(answer.text)["request_id"] == request


@pytest.mark.parametrize("name", PROBES)
def test_log_line_of_the_app_names_its_request(host: Host, stack: Stack, name: str) -> None:
    """The id joins what nginx logged with what the app logged."""
    request = find(stack, name).get("/sleep/0").headers["X-Request-ID"]
    lines = f"cd {stack.directory} && docker compose logs {name}"
    stack.wait_for("the line is in the log", lambda: f"WARNING {request} probe: slept" in host.check_output(lines))


def test_paths_are_taken_by_whole_segments_and_hosts_are_apart(stack: Stack) -> None:
    """`/apix` is not below `/api`; a service with a host has all its paths, and an unknown host has no service."""
    www, live = find(stack, "app"), find(stack, "live")
    assert www.get("/apix").status == 404
    assert "Hello" in www.get("/").text
    assert live.get("/api/whoami").status == 404
    assert live.get("/whoami").status == 200
    assert stack.at("strange.test", "").get("/").status == 421


@pytest.mark.parametrize("name", PROBES)
def test_app_knows_its_client_and_its_address(stack: Stack, name: str) -> None:
    """The app gets both as nginx saw them, whatever the client claims."""
    door = find(stack, name)
    door = stack.at(f"{door.name}:8443", door.prefix)
    claims = {"X_Forwarded_For": "203.0.113.7", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "strange.test"}
    said = json.loads(door.get("/whoami", **claims).text)
    assert said["url"] == f"http://{door.name}{door.prefix}/whoami"
    # Not to the port of nginx, where somebody else may be.
    assert door.get("/folder").headers["Location"] == f"http://{door.name}{door.prefix}/folder/"
    assert said["client"] == own_address()


ASK = """
import json, sys, urllib.request
print(json.load(urllib.request.urlopen(sys.argv[1], timeout=5))["container"])
"""


def test_services_reach_each_other_by_name_and_nobody_else_does(host: Host, stack: Stack) -> None:
    """They go through nginx, so that all replicas share the work, at a port that is closed outside."""

    def ask(name: str, url: str) -> CommandResult:
        return host.run(f"docker exec {stack.containers(name)[0].id} python3 -c {shlex.quote(ASK)} {url}")

    answers = {ask("tools", "http://api.internal:8000/api/whoami").stdout.strip() for _ in range(4)}
    assert answers == {replica.id for replica in stack.containers("api")}
    assert ask("api", "http://live.internal:8000/whoami").rc == 0
    assert "HTTP Error 421" in ask("api", "http://nginx:8000/whoami").stderr
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection((stack.address, 8000), timeout=2)


CONNECT = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def connects(target):
    host, port = target.split(":")
    try:
        socket.create_connection((host, int(port)), 2).close()
    except OSError:
        return False
    return True

with ThreadPoolExecutor() as pool:
    targets = sys.argv[1:]
    print(*(target for target, so in zip(targets, pool.map(connects, targets)) if so))
"""


def test_only_the_service_that_names_the_database_reaches_it(host: Host, stack: Stack) -> None:
    """No service reaches the replicas of another either, at whatever address."""

    def addresses(service: str, port: int) -> list[str]:
        networks = [one["NetworkSettings"]["Networks"] for one in stack.inspect(service)]
        return [f"{network['IPAddress']}:{port}" for one in networks for network in one.values()]

    targets = {"api": ["db:5432", *addresses("db", 5432)], "tools": addresses("tools", 8080)}
    every = [target for some in targets.values() for target in some]
    for name in SERVICES:
        ask = f"docker exec {stack.containers(name)[0].id} python3 -c {shlex.quote(CONNECT)} {' '.join(every)}"
        assert host.check_output(ask).split() == targets.get(name, []), name


def test_secret_is_where_it_is_wanted_and_nowhere_else(host: Host, stack: Stack) -> None:
    """The database's address with its password is a file for one service, and in no container's settings."""
    for name in SERVICES:
        container = stack.containers(name)[0].id
        files = host.check_output(f"docker exec {container} ls /run/secrets 2>/dev/null || true").split()
        assert sorted(files) == (["DATABASE_URL", "db_password"] if name == "api" else [])
    assert "postgresql://app:" not in host.check_output("docker ps --all --quiet | xargs docker inspect")
