"""Compose as the engine: which commands it gets, and what is made of its answers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.engine.base import NGINX, Plan, Port
from fleet.engine.compose import PORTS_LABEL, PROTOCOL_LABEL, SERVER_LABEL, STATIC_LABEL, Compose
from fleet.release import FRESH_S, Releases
from fleet.system import LOG_LINES, FleetError, LateError, utc
from tests import fake_docker
from tests.fake_docker import Docker

COMMAND = ["flask", "db", "upgrade"]
YEARS_AGO = "2020-01-01T00:00:00Z"
NEVER = -62135596800
"""What the engine of Debian 12 says of an image that BuildKit made: the year 1."""
CONFIG: dict[str, Any] = {
    "name": "fleet",
    "networks": {"default": {"name": "front"}, "inside": {"name": "fleet_inside"}},
    "services": {
        "nginx": {
            "image": "fleet-nginx:1",
            "labels": {PORTS_LABEL: ""},
            "networks": {"default": None, "inside": None},
            "ports": [{"host_ip": "127.0.0.1", "published": "7151", "target": 80}],
            "volumes": [{"source": "/stack/nginx", "target": "/etc/nginx/stack"}],
        },
        "app": {
            "image": "fleet-app:2",
            "labels": {PROTOCOL_LABEL: "uwsgi", STATIC_LABEL: "hello/static"},
            "environment": {"PORT": "8080"},
            "networks": {"inside": None},
            "deploy": {"replicas": 3},
        },
    },
}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Return a docker that knows the project."""
    fake = Docker(tmp_path / "bin", monkeypatch)
    fake.answer("config --format", says=json.dumps(CONFIG))
    fake.answer("config --hash", says="nginx aaaa\napp bbbb\n")
    return fake


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Return the engine of a stack that has a live release and another one."""
    (tmp_path / "releases/r1").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "releases/r1"):
        (folder / "compose.yml").write_text(f"# {folder}")
    return Compose(Releases(tmp_path))


def container(name: str, service: str, config_hash: str = "bbbb", **state: Any) -> dict[str, Any]:
    made = fake_docker.container(name, service, config_hash, Id=name * 16)
    made["Config"]["Labels"] |= {SERVER_LABEL: "gunicorn"} if service == "app" else {PORTS_LABEL: ""}
    made["Config"]["Env"] = ["A=b=c", "PORT=28255"] if service == "app" else None
    made["State"] |= state
    made["NetworkSettings"]["Networks"] = {"fleet_inside": {"IPAddress": "172.19.0.9"}, "front": {"IPAddress": ""}}
    return made


def test_plan_is_what_compose_makes_of_the_file(docker: Docker, compose: Compose, tmp_path: Path) -> None:
    plan, inside = compose.plan("r1"), frozenset({"fleet_inside"})
    assert plan["app"] == Plan(3, "fleet-app:2", inside, port="8080", protocol="uwsgi", static="hello/static")
    mounted = {"/etc/nginx/stack": "/stack/nginx"}
    assert plan[NGINX] == Plan(1, "fleet-nginx:1", inside | {"front"}, finds_ports=True, mounted=mounted)
    compose.plan("r1")
    assert [call[3:5] for call in docker.asked("config --format")] == [
        ["--file", str(tmp_path / "releases/r1/compose.yml")]
    ]
    (tmp_path / "releases/r1/compose.yml").write_text("# other")
    compose.plan("r1")
    assert len(docker.asked("config --format")) == 2


def test_release_that_is_not_there_is_named(compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=f"there is no {tmp_path}/releases/r2/compose.yml"):
        compose.plan("r2")


def test_what_runs_is_compared_by_what_compose_would_label_it_with(docker: Docker, compose: Compose) -> None:
    """Dead containers, and those of services that the release does not have, are compared too."""
    docker.answer("ps --all", says="a b c d")
    found = [
        container("a", "app", Health={"Status": "healthy"}),
        container("b", "app", "old", Restarting=True, ExitCode=137, OOMKilled=True),
        container("c", "nginx", "aaaa"),
        container("d", "gone"),
    ]
    ended = {"status": 1, "complains": "no such container"}
    docker.answer("inspect --type container a b c d", says=json.dumps(found), **ended)
    state = compose.compare(None)
    fresh, old = state.services["app"].replicas
    assert (fresh.id, fresh.name) == ("a" * 12, "fleet-a")
    assert (fresh.fresh, fresh.running, fresh.health) == (True, True, "healthy")
    assert (fresh.port, fresh.protocol) == ("28255", "http"), "an earlier release says the application server"
    assert fresh.addresses == {"172.19.0.9"}
    assert fresh.networks == {"fleet_inside", "front"}
    assert (old.fresh, old.running, old.exit_code, old.out_of_memory) == (False, False, 137, True)
    assert [(one.fresh, one.port, one.finds_ports) for one in state.nginx.replicas] == [(True, "", True)]
    assert [one.service for one in state.orphans] == ["gone"]
    (listing,) = docker.asked("ps --all")
    assert "label=com.docker.compose.oneoff=False" in listing, "those of docker compose run are no replicas"


@pytest.mark.parametrize(
    ("labels", "protocol"),
    [
        ({PROTOCOL_LABEL: "uwsgi"}, "uwsgi"),
        ({PROTOCOL_LABEL: "http"}, "http"),
        # Releases of earlier versions of this project say the application server.
        ({SERVER_LABEL: "uwsgi"}, "uwsgi"),
        ({SERVER_LABEL: "granian"}, "http"),
        ({PORTS_LABEL: "noted"}, ""),
    ],
)
def test_label_says_what_a_replica_speaks(
    docker: Docker, compose: Compose, labels: dict[str, str], protocol: str
) -> None:
    made = fake_docker.container("a", "app", "bbbb")
    made["Config"]["Labels"] = labels
    docker.answer("inspect", says=json.dumps([made]))
    (replica,) = compose.replicas(["a"])
    assert replica.protocol == protocol


def test_started_are_those_that_were_not_there_before(docker: Docker, compose: Compose, tmp_path: Path) -> None:
    """Compose does not say which containers it made."""
    listed = tmp_path / "bin" / "listed"
    listed.write_text("old")
    program = tmp_path / "bin" / "docker"
    # It is asked twice.
    program.write_text(
        program.read_text().replace(
            "for words,",
            (
                f"if 'ps --all' in asked:\n    print(open('{listed}').read())\n"
                f"elif ' up ' in asked:\n    open('{listed}', 'a').write(' new2{'0' * 20} new1{'0' * 20}')\nfor words,"
            ),
        )
    )
    assert compose.start("app", 3) == ["new100000000", "new200000000"]
    (call,) = docker.asked(" up ")
    assert " ".join(call).endswith("up --detach --no-deps --no-recreate --scale app=3 app")


@pytest.mark.parametrize(
    ("services", "replace", "options"),
    [([], True, "--remove-orphans"), (["app"], True, "--no-deps app"), (["nginx"], False, "--no-recreate nginx")],
)
def test_bringing_up_waits_and_asks_no_registry(
    docker: Docker, compose: Compose, services: list[str], replace: bool, options: str
) -> None:
    compose.bring_up(services, replace=replace, seconds=7)
    (call,) = docker.asked(" up ")
    assert " ".join(call).endswith(f"up --detach --pull never --wait --wait-timeout 7 {options}")


def test_nginx_is_brought_up_beside_as_many_replicas_as_there_are(docker: Docker, compose: Compose) -> None:
    """Compose would otherwise start replicas that nobody has tried, or stop some that serve."""
    docker.answer("service=app", says="one two")
    compose.bring_up(["nginx"], replace=False, seconds=7)
    (call,) = docker.asked(" up ")
    assert " ".join(call).endswith("--no-recreate --scale app=2 nginx")


def test_scaling_leaves_all_others_as_they_are(docker: Docker, compose: Compose) -> None:
    compose.scale({"app": 5, "api": 2}, 7)
    (call,) = docker.asked(" up ")
    how = "--detach --no-recreate --pull never --wait --wait-timeout 7"
    assert " ".join(call).endswith(f"up {how} --scale app=5 --scale api=2")


def test_nobody_is_stopped_or_removed_where_nobody_is_named(docker: Docker, compose: Compose) -> None:
    compose.stop([])
    compose.remove([])
    assert docker.asked() == []
    compose.stop(["a", "b"])
    assert docker.asked() == [["stop", "a", "b"], ["rm", "--force", "a", "b"]]


@pytest.mark.parametrize(
    ("test", "asked"),
    [
        (["CMD", "healthy", "/healthz"], ["healthy", "/healthz"]),
        (["CMD-SHELL", "healthy || exit 1"], ["sh", "-c", "healthy || exit 1"]),
        (["NONE"], []),
        (None, []),
    ],
)
def test_health_check_is_the_one_of_the_container(
    docker: Docker, compose: Compose, test: list[str] | None, asked: list[str]
) -> None:
    """It is run at once, because the engine may take long until the next one."""
    docker.answer("inspect", says=json.dumps([{"Config": {"Healthcheck": {"Test": test}} if test else {}}]))
    docker.answer("exec 0a1b", says="connection ", complains="refused\n", status=1)
    assert compose.health_failure("0a1b") == ("connection refused" if asked else "")
    assert docker.asked("exec 0a1b") == ([["exec", "0a1b", *asked]] if asked else [])
    for status, failure in ((0, ""), (1, "the health check fails" if asked else "")):
        docker.answer("exec 0a1b", status=status)
        assert compose.health_failure("0a1b") == failure


@pytest.mark.parametrize(("restarts", "part"), [(0, ["--tail", "20"]), (2, ["--until", "2026-11-22T06:19:00.1Z"])])
def test_log_tail_is_that_before_it_was_started_again(
    docker: Docker, compose: Compose, restarts: int, part: list[str]
) -> None:
    """The many lines of a server's next start would hide why it ended."""
    state = {"RestartCount": restarts, "State": {"StartedAt": "2026-11-22T06:19:00.1Z"}}
    docker.answer("inspect", says=json.dumps([state]))
    docker.answer("logs", says="\n".join(map(str, range(50))))
    assert compose.log_tail("0a1b").splitlines() == [str(number) for number in range(50 - LOG_LINES, 50)]
    assert docker.asked("logs") == [["logs", *part, "0a1b"]]


def test_command_runs_in_the_oldest_replica_of_a_service_or_in_a_container(docker: Docker, compose: Compose) -> None:
    started = {"a": "2026-11-22T06:19:02Z", "b": "2026-11-22T06:19:01Z", "c": "2026-11-22T06:19:00Z"}
    there = [container(name, "app", StartedAt=since, Running=name != "c") for name, since in started.items()]
    docker.answer("ps --all", says="a b c d")
    docker.answer("inspect", says=json.dumps([*there, container("d", "nginx")]))
    docker.answer("exec", says="Python 3.13\n", complains="late\n", status=3)
    answer = compose.execute("app", ["python", "-V"])
    assert (answer.status, sorted(answer.text.splitlines())) == (3, ["Python 3.13", "late"])
    compose.execute("0a1b", ["true"])
    assert docker.asked("exec") == [["exec", "b" * 12, "python", "-V"], ["exec", "0a1b", "true"]]
    docker.answer("inspect", says="[]")
    assert compose.execute("app", ["true"]).text == "app does not run"


def test_command_before_a_deploy_runs_in_the_new_release(docker: Docker, compose: Compose, tmp_path: Path) -> None:
    docker.answer("run --rm", says="one\ntwo\n", complains="no such table\n", status=3)
    answer = compose.run_once("r1", "app", COMMAND, 5)
    assert (answer.status, sorted(answer.text.splitlines())) == (3, ["no such table", "one", "two"])
    (call,) = docker.asked("run --rm")
    assert call[call.index("--file") + 1] == str(tmp_path / "releases/r1/compose.yml")
    assert " ".join(call).endswith("run --rm --no-deps --no-TTY --name fleet-app-pre-deploy app flask db upgrade")


def test_command_that_does_not_end_is_ended_with_its_container(docker: Docker, compose: Compose) -> None:
    """The container outlives the program that waits for it, and one of a killed run would occupy the name."""
    docker.answer("run --rm", says="waiting for a lock\n", takes=30)
    with pytest.raises(LateError, match="did not end within 1 s") as told:
        compose.run_once("r1", "app", COMMAND, 1)
    assert told.value.text == "waiting for a lock\n"
    order = [({"config", "rm", "run"} & set(call)).pop() for call in docker.asked() if "--rm" not in call]
    assert order == ["config", "rm", "rm"]
    assert docker.asked("rm --force") == [["rm", "--force", "fleet-app-pre-deploy"]] * 2


def test_only_an_nginx_that_was_tried_is_found_by_the_services(docker: Docker, compose: Compose) -> None:
    """An nginx that stands in has nginx's names in their networks, and one on trial, which may be broken, does not."""
    docker.answer("inspect", says=json.dumps([container("x", "nginx")]))
    compose.start_standby(reachable=False)
    compose.start_standby(reachable=True)
    tried, stands_in = docker.asked("run --detach")
    assert "--use-aliases" in stands_in
    assert stands_in[stands_in.index("--publish") + 1] == "127.0.0.1::80"
    assert max(map(stands_in.index, ("--use-aliases", "--publish"))) < stands_in.index(NGINX), "a command of its own"
    assert not {"--use-aliases", "--publish"} & set(tried)
    assert docker.asked("rm --force") == [["rm", "--force", compose.standby()]] * 2
    assert compose.published() == [Port("127.0.0.1", "7151", "80")]


def test_machine_reaches_a_container_in_the_network_of_nginx(docker: Docker, compose: Compose) -> None:
    """In the other networks the engine admits no connection from the machine."""
    found = container("x", "nginx")
    found["NetworkSettings"]["Networks"]["front"]["IPAddress"] = "172.18.0.4"
    docker.answer("inspect", says=json.dumps([found]))
    assert compose.address_of("x") == "172.18.0.4"


def test_images_go_that_no_release_needs(docker: Docker, compose: Compose) -> None:
    """Fresh images and those of others stay; an image that is in use is no failure."""
    listed = "fleet-app:1 fleet-app:2 fleet-app:old fleet-app:new fleet-app:built other:1 fleet-gone:1"
    docker.answer("images --format", says=listed)
    now = int(time.time())
    times = [(now - FRESH_S - 60, YEARS_AGO), (now, YEARS_AGO), (NEVER, f"{utc(now)[:10]}T{utc(now)[11:]}.123456789Z")]
    docker.answer("image inspect", says="\n".join(f"{tagged} {created}" for tagged, created in times))
    docker.answer("rmi", status=1, complains="is in use")
    compose.prune({"fleet-app:2"}, {"fleet-app:1", "fleet-gone:1", "fleet-app:2", "never-built:1"})
    assert docker.asked("image inspect")[0][-3:] == ["fleet-app:old", "fleet-app:new", "fleet-app:built"]
    assert docker.asked("rmi") == [["rmi", "fleet-app:1", "fleet-gone:1", "fleet-app:old"]]
    assert [call[:3] for call in docker.asked("network prune")] == [["network", "prune", "--force"]]


def test_usage_is_by_name(docker: Docker, compose: Compose) -> None:
    docker.answer("stats", says="fleet-a 1.50% 30MiB / 128MiB\nfleet-b 0.00% 1MiB / 1GiB\n")
    assert compose.usage() == {"fleet-a": ("1.50%", "30MiB of 128MiB"), "fleet-b": ("0.00%", "1MiB of 1GiB")}


def test_logs_say_who_wrote_each_line(docker: Docker, compose: Compose) -> None:
    docker.answer("ps --all", says="a")
    docker.answer("inspect --type", says=json.dumps([container("a", "app")]))
    docker.answer("logs --timestamps", says="one\n", complains="two\n")
    lines = compose.logs(compose.replicas(), 5).splitlines()
    assert sorted(lines) == ["fleet-a  | one", "fleet-a  | two"]
    assert docker.asked("logs --timestamps") == [["logs", "--timestamps", "--tail", "5", "a" * 12]]
