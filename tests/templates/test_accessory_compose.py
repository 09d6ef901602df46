"""compose.yml of the databases: confined like the stack's containers, and reached only by services that name them."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bench.render import MANAGED, Renderer, machine
from plugins.filter.sizes import memory_mib
from tests.project import ACCESSORY, SERVICE

DB = ACCESSORY
CACHE = ACCESSORY | {"name": "cache", "kind": "redis", "memory": "64m", "password": DB["password"][::-1]}
IMAGES = {"postgresql": "flask-fleet/postgresql:0123456789ab", "redis": "flask-fleet/redis:123456789012"}
STACK_IMAGES = {"nginx": "flask-fleet/nginx:0123456789ab", "app": "flask-fleet/app:123456789012"}

Compose = Callable[..., dict[str, Any]]


def data_project(render: Renderer, *accessories: dict[str, Any], **variables: Any) -> str:
    given = {"accessory_services": list(accessories), "accessory_images": IMAGES, "__accessory_machine": machine()}
    return render("accessory", "compose.yml.j2", **(given | variables))


@pytest.fixture
def compose(render: Renderer) -> Compose:
    def read(*accessories: dict[str, Any], **variables: Any) -> dict[str, Any]:
        content: dict[str, Any] = yaml.load(data_project(render, *accessories, **variables), yaml.CSafeLoader)
        return content

    return read


@pytest.fixture
def stack(render: Renderer) -> Compose:
    def read(*services: dict[str, Any], **variables: Any) -> dict[str, Any]:
        given = {
            "stack_images": STACK_IMAGES,
            "__stack_machine": machine(),
            "accessory_services": [DB, CACHE],
        } | variables
        text = render("stack", "compose.yml.j2", stack_services=list(services), **given)
        content: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
        return content

    return read


def test_databases_are_a_project_of_their_own(render: Renderer, compose: Compose) -> None:
    """No deploy, rollback or `down` of the stack affects them."""
    assert data_project(render, DB).startswith(f"#\n# {MANAGED}\n#\n")
    content = compose(DB, CACHE, stack_name="mine")
    assert content["name"] == "mine-data"
    assert list(content["services"]) == ["db", "cache"]
    images = {name: one["image"] for name, one in content["services"].items()}
    assert images == {"db": IMAGES["postgresql"], "cache": IMAGES["redis"]}


def test_every_database_is_confined_as_replicas_are(compose: Compose, stack: Compose) -> None:
    replica = stack(SERVICE)["services"]["app"]
    for name, one in compose(DB, CACHE)["services"].items():
        for key in ("cap_drop", "init", "logging", "pull_policy", "read_only", "restart", "security_opt"):
            assert one[key] == replica[key], (name, key)
        assert one["healthcheck"] == {"start_interval": "1s"}
        assert {"cap_add", "privileged", "devices", "pid", "ipc", "ports", "network_mode"}.isdisjoint(one), name
        limits = one["deploy"]["resources"]["limits"]
        assert one["memswap_limit"] == limits["memory"]
        assert 0 < limits["pids"] <= 100
        assert {"noexec", "nosuid", "nodev", "size=16m"} <= set(one["tmpfs"][0].split(":")[1].split(","))
        assert one["ulimits"]["core"] == 0
        assert one["user"] == {"db": "10003:10003", "cache": "10004:10004"}[name]


@pytest.mark.parametrize(("cgroup", "shares"), [("1", 2048), ("2", 5220)])
def test_a_database_has_twice_the_weight_of_a_replica(compose: Compose, cgroup: str, shares: int) -> None:
    db = compose(DB, __accessory_machine=machine("24.0.9", cgroup))["services"]["db"]
    assert db["cpu_shares"] == shares
    assert "healthcheck" not in db, "an old engine knows no start_interval"


def test_password_is_a_file_and_nothing_else(render: Renderer, compose: Compose) -> None:
    """Everybody on the machine can read compose.yml, so it is not there; another password is in another folder."""
    text = data_project(render, DB, CACHE)
    assert DB["password"] not in text
    assert CACHE["password"] not in text
    before, after = (compose(DB | {"password": word})["services"]["db"]["volumes"] for word in ("one-word", "another"))
    assert before[1]["target"] == "/run/secrets"
    assert before[1]["read_only"] is True
    assert before[1]["bind"] == {"create_host_path": False}
    assert before[0] == after[0] == "db:/var/lib/postgresql"
    assert before[1]["source"] != after[1]["source"]
    assert all(one[1]["source"].startswith("./secrets/db-") for one in (before, after))


def test_data_is_in_a_volume_with_a_name(compose: Compose) -> None:
    """Without a name every container would get a new volume."""
    content = compose(DB, CACHE)
    assert content["volumes"] == {"db": {}, "cache": {}}
    assert content["services"]["cache"]["volumes"][0] == "cache:/var/lib/redis"


def test_each_database_has_a_network_without_a_way_out(compose: Compose) -> None:
    content = compose(DB, CACHE)
    assert {name: one["networks"] for name, one in content["services"].items()} == {"db": ["db"], "cache": ["cache"]}
    for network in content["networks"].values():
        assert network["internal"] is True
        assert network["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}


def test_memory_decides_what_a_server_is_started_with(compose: Compose) -> None:
    services = compose(DB, CACHE)["services"]
    assert services["db"]["deploy"]["resources"]["limits"]["memory"] == "256m"
    assert {"shared_buffers=64MB", "max_connections=32"} < set(services["db"]["command"])
    assert services["cache"]["command"] == ["--maxmemory", "32mb"]
    assert compose(DB | {"memory": "1g"})["services"]["db"]["command"] != services["db"]["command"]


def test_only_who_names_a_database_reaches_it(compose: Compose, stack: Compose) -> None:
    data = compose(DB, CACHE, stack_name="mine")
    api = SERVICE | {"name": "api", "path": "/api"}
    images = STACK_IMAGES | {"api": "flask-fleet/api:1"}
    content = stack(SERVICE | {"accessories": ["db"]}, api, stack_name="mine", stack_images=images)
    assert content["services"]["app"]["networks"] == ["app.inside", "db.data"]
    assert content["services"]["api"]["networks"] == ["api.inside"]
    assert "db.data" not in content["services"]["nginx"]["networks"]
    assert content["networks"]["db.data"] == {"external": True, "name": f"{data['name']}_db"}
    assert "cache.data" not in content["networks"]


def test_only_who_names_a_database_gets_its_password(stack: Compose) -> None:
    api = SERVICE | {"name": "api", "path": "/api"}
    images = STACK_IMAGES | {"api": "flask-fleet/api:1"}
    asking = SERVICE | {"accessories": ["db", "cache"]}

    def secrets_of(service: dict[str, Any]) -> list[str]:
        return [mount["source"] for mount in service["volumes"] if mount["target"] == "/run/secrets"]

    content = stack(asking, api, stack_images=images)["services"]
    assert secrets_of(content["api"]) == []
    (folder,) = secrets_of(content["app"])
    changed = stack(asking, accessory_services=[DB | {"password": DB["password"] * 2}, CACHE])["services"]
    (other,) = secrets_of(changed["app"])
    assert other != folder


def test_memory_of_databases_is_not_given_to_replicas(stack: Compose) -> None:
    short = {key: SERVICE[key] for key in ("name", "context", "path", "server")}

    def memory(*accessories: dict[str, Any]) -> float | None:
        deploy = stack(short, accessory_services=list(accessories))["services"]["app"]["deploy"]
        return memory_mib(deploy["resources"]["limits"]["memory"])

    assert memory() == 128
    assert memory(DB) == 64


def test_stack_without_databases_is_as_it_was(stack: Compose) -> None:
    """This holds without the variable too, as in playbooks that do not use the role."""
    assert "data" not in str(stack(SERVICE, accessory_services=[])["networks"])
