"""compose.yml of the stack: what runs with which limits, and that only nginx can be reached."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bench.render import MANAGED, Renderer, machine
from fleet.engine.compose import PORTS_LABEL, PROTOCOL_LABEL, STATIC_LABEL
from plugins.filter.sizes import memory_mib
from preflight.services import STACK_ENVIRONMENT
from tests.project import SERVICE

APP = SERVICE
API = APP | {"name": "api-2", "context": "api", "path": "/api", "replicas": 2, "memory": "1g", "cpus": "2"}
IMAGES = {
    "nginx": "flask-fleet/nginx:0123456789ab",
    "app": "flask-fleet/app:123456789012",
    "api-2": "registry.example:5000/team/api:v1.2",
}
ANY_TEXT = "\U0001f680 é \ufeff\u2028\x85\x7f\x9f\ufffe" + "".join(map(chr, range(1, 32))) + " " * 200 + "\\ end "
SERVICES = {"one service": [APP], "two services": [APP, API]}

Compose = Callable[..., dict[str, Any]]

both = pytest.mark.parametrize("services", SERVICES.values(), ids=SERVICES.keys())


@pytest.fixture
def compose(render: Renderer) -> Compose:
    def read(services: list[dict[str, Any]], **variables: Any) -> dict[str, Any]:
        given = {"stack_images": IMAGES, "__stack_machine": machine()} | variables
        text = render("stack", "compose.yml.j2", stack_services=services, **given)
        content: dict[str, Any] = yaml.load(text, yaml.CSafeLoader)
        return content

    return read


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


@both
def test_every_service_is_there_once(compose: Compose, services: list[dict[str, Any]]) -> None:
    content = compose(services, stack_name="mine")
    assert list(content["services"]) == ["nginx", *(service["name"] for service in services)]
    assert content["name"] == "mine"


def test_first_lines_say_who_writes_the_file(render: Renderer) -> None:
    given: dict[str, Any] = {"stack_services": [API], "stack_images": IMAGES, "__stack_machine": machine()}
    text = render("stack", "compose.yml.j2", **given)
    assert text.startswith(f"#\n# {MANAGED}\n#\n")
    assert "--scale api-2=5\n" in text


@both
def test_only_nginx_is_published(compose: Compose, services: list[dict[str, Any]]) -> None:
    """A replica that clients reach directly would believe any X-Forwarded-For."""
    content = compose(services, stack_address="127.0.0.1", stack_port=7151)
    published = {name: service["ports"] for name, service in content["services"].items() if "ports" in service}
    assert published == {"nginx": ["127.0.0.1:7151:80"]}
    assert [name for name, service in content["services"].items() if "network_mode" in service] == []


def test_https_is_published_where_there_is_a_certificate(compose: Compose) -> None:
    """The folder of the certificate is mounted and not its files, because a renewal makes new files."""
    tls = {"certificate_mode": "self_signed", "certificate_directory": "/var/lib/mine", "stack_https_port": 7154}
    content = compose([APP], stack_address="127.0.0.1", stack_port=7151, **tls)["services"]
    assert content["nginx"]["ports"] == ["127.0.0.1:7151:80", "127.0.0.1:7154:443"]
    mounts = {"served:/etc/nginx/certificate:ro", "webroot:/var/www/challenges:ro"}
    assert {f"/var/lib/mine/{mount}" for mount in mounts} < set(content["nginx"]["volumes"])
    assert all("/var/lib/mine" not in str(service) for name, service in content.items() if name != "nginx")


@both
def test_every_container_is_confined(compose: Compose, services: list[dict[str, Any]]) -> None:
    """An intruder in one finds nothing to write to, no privilege to gain, and limits."""
    for name, service in compose(services)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert {"cap_add", "privileged", "devices", "pid", "ipc"}.isdisjoint(service), name
        limits = service["deploy"]["resources"]["limits"]
        assert limits["memory"], name
        assert 0 < limits["pids"] <= 100, name
        # Swap would be a second memory limit, and put on the disk what was only in memory.
        assert service["memswap_limit"] == limits["memory"], name
        # Where a read-only container still has to write: no programs, and no more than half of its memory.
        ((folder, options),) = (mount.split(":") for mount in service["tmpfs"])
        assert folder == "/tmp", name  # noqa: S108 - in a container
        part = int((memory_mib(limits["memory"]) or 0) / (4 if name == "nginx" else 2))
        assert {"noexec", "nosuid", "nodev", f"size={part}m"} <= set(options.split(",")), name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert service["pull_policy"] == "never", name
        assert service["ulimits"]["core"] == 0, name
        # After a reboot too, but not when a person stopped it.
        assert service["restart"] == "unless-stopped", name
        assert name == "nginx" or service["user"] == "10001:10001"


@pytest.mark.parametrize(
    ("server", "program"), [("gunicorn", "gunicorn"), ("uwsgi", "uwsgi-core"), ("granian", "python3")]
)
def test_server_is_started_with_its_file(compose: Compose, server: str, program: str) -> None:
    command = compose([APP | {"server": server}])["services"]["app"]["command"]
    assert command[0] == program
    assert [word for word in command if word.startswith("/etc/fleet/")]


def test_service_may_have_a_command_of_its_own(compose: Compose) -> None:
    """It arrives word for word, although Compose replaces $NAME by a variable's value."""
    words = ["gunicorn", "--threads", "8", "$HOME", ANY_TEXT, "shop:app"]
    command = compose([APP | {"command": words}])["services"]["app"]["command"]
    assert [word.replace("$$", "$") for word in command] == words
    assert command[3] == "$$HOME"


def test_service_names_its_application(compose: Compose) -> None:
    services = compose([APP, API | {"app": "shop:create_app()"}])["services"]
    assert [services[name]["environment"]["APP"] for name in ("app", "api-2")] == ["wsgi:app", "shop:create_app()"]


@pytest.mark.parametrize(
    ("old", "new"),
    [({"timeout_seconds": 40}, {"timeout_seconds": 50}), ({"secrets": {"key": "old"}}, {"secrets": {"key": "new"}})],
)
def test_other_configuration_or_secret_changes_its_service_alone(
    compose: Compose, old: dict[str, Any], new: dict[str, Any]
) -> None:
    """Compose replaces a container whose description changed, so a new value takes effect."""
    before, after = (compose([APP | given, API])["services"] for given in (old, new))
    assert [name for name in before if before[name] != after[name]] == ["app"]


@both
def test_every_service_has_a_network_of_its_own(compose: Compose, services: list[dict[str, Any]]) -> None:
    """Only nginx is in all of them, and alone in the published one; the services' networks have no way out."""
    content = compose(services)
    inside = [f"{service['name']}.inside" for service in services]
    assert list(content["services"]["nginx"]["networks"]) == ["default", *inside]
    assert [content["services"][service["name"]]["networks"] for service in services] == [[name] for name in inside]
    assert content["networks"].keys() == {"default", *inside}
    for name in inside:
        assert content["networks"][name]["internal"] is True
        assert content["networks"][name]["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}


def test_services_find_nginx_by_each_others_names(compose: Compose) -> None:
    """No service finds its own name, nor a bare one, which is the containers'; the only service finds none."""
    tools = APP | {"name": "tools", "path": "/tools"}
    content = compose([APP, API, tools], stack_images=IMAGES | {"tools": "flask-fleet/tools:0"})
    assert content["services"]["nginx"]["networks"] == {
        "default": None,
        "app.inside": {"aliases": ["api-2.internal", "tools.internal"]},
        "api-2.inside": {"aliases": ["app.internal", "tools.internal"]},
        "tools.inside": {"aliases": ["app.internal", "api-2.internal"]},
    }
    # As Compose reads a mere list of them: another description would replace an nginx that serves one service.
    assert compose([APP])["services"]["nginx"]["networks"] == {"default": None, "app.inside": None}


def test_a_service_that_asks_others_gets_a_way_out(compose: Compose) -> None:
    """It gets a second network, in which neither nginx nor any other service with a way out is."""
    content = compose([APP, API | {"internet": True}])
    assert content["services"]["api-2"]["networks"] == ["api-2.inside", "api-2.outside"]
    assert [name for name, one in content["services"].items() if "api-2.outside" in one["networks"]] == ["api-2"]
    assert content["networks"]["api-2.outside"] == {}


@both
def test_limits_are_those_of_the_service(compose: Compose, services: list[dict[str, Any]]) -> None:
    content = compose(services, stack_nginx_memory="96m")
    for service in services:
        deploy = content["services"][service["name"]]["deploy"]
        assert deploy["replicas"] == service["replicas"]
        assert deploy["resources"]["limits"]["memory"] == service["memory"]
        # Compose wants text here: a bare 0.5 is a number.
        assert deploy["resources"]["limits"]["cpus"] == service["cpus"]
    assert content["services"]["nginx"]["deploy"]["resources"]["limits"]["memory"] == "96m"
    assert content["services"]["nginx"]["deploy"].get("replicas", 1) == 1


def test_machine_fills_in_what_a_service_leaves_open(compose: Compose) -> None:
    short = {key: APP[key] for key in ("name", "context", "path", "server")}
    deploy = compose([short])["services"]["app"]["deploy"]
    assert deploy["replicas"] == 3
    assert deploy["resources"]["limits"] == {"cpus": "0.5", "memory": "128m", "pids": 100}


@both
def test_images_are_those_that_were_built_and_told_to_replicas(
    compose: Compose, services: list[dict[str, Any]]
) -> None:
    content = compose(services)["services"]
    assert {name: service["image"] for name, service in content.items()} == {name: IMAGES[name] for name in content}
    assert [name for name, service in content.items() if "build" in service] == []
    # As text, even if the hash has no letter and YAML would see a number.
    for service in services:
        tag = IMAGES[service["name"]].rpartition(":")[2]
        assert content[service["name"]]["environment"]["RELEASE"] == tag


@pytest.mark.parametrize(("drain", "stop"), [(3, 20), (1, 1), (300, 600), ("3", "20")])
def test_engine_waits_longer_than_drain_and_stop(compose: Compose, drain: int | str, stop: int | str) -> None:
    """A replica or an nginx that is killed while it drains loses requests; -e gives numbers as text."""
    content = compose([APP, API], stack_drain_seconds=drain, stack_stop_seconds=stop)["services"]
    for name in ("app", "api-2"):
        assert seconds(content[name]["stop_grace_period"]) > int(drain) + int(stop)
        assert content[name]["environment"]["DRAIN_SECONDS"] == str(drain)
    assert seconds(content["nginx"]["stop_grace_period"]) > int(stop)


def test_configuration_is_mounted_as_a_folder_read_only(compose: Compose) -> None:
    """Ansible replaces the file; a mount of the file alone would show the old one until the container is replaced."""
    content = compose([APP])["services"]
    assert content["nginx"]["volumes"] == ["./nginx:/etc/nginx/stack:ro"]
    (mount,) = content["app"]["volumes"]
    assert mount["target"] == "/etc/fleet"
    assert mount["read_only"] is True
    assert mount["bind"] == {"create_host_path": False}, "a replica would start without its configuration"


def test_other_configuration_is_another_folder(compose: Compose) -> None:
    """Compose replaces a container only when its description changes."""

    def source(services: list[dict[str, Any]], name: str) -> str:
        return str(compose(services)["services"][name]["volumes"][0]["source"])

    changed = APP | {"timeout_seconds": 60}
    sources = [source([APP], "app"), source([changed], "app"), source([APP, API], "api-2"), source([APP, API], "app")]
    assert len(set(sources)) == 3
    assert sources[0] == sources[3]
    assert all(re.fullmatch(r"./servers/(app|api-2)-[0-9a-f]{12}", one) for one in sources)


def test_static_files_are_mounted_where_nginx_looks_for_them(compose: Compose, render: Renderer) -> None:
    """They are read-only, for the services that have some; a label tells the roll-out the folder in the image."""
    static = {"path": "/static/", "folder": "hello/static"}
    content = compose([APP | {"static": static}, API])["services"]
    assert content["nginx"]["volumes"] == ["./nginx:/etc/nginx/stack:ro", "./static/app:/srv/static/app:ro"]
    assert content["app"]["labels"][STATIC_LABEL] == "hello/static"
    assert STATIC_LABEL not in content["api-2"]["labels"]
    given: dict[str, Any] = {"inventory_hostname": "web", "stack_services": [APP | {"static": static}]}
    conf = render("stack", "nginx/nginx.conf.j2", __stack_machine=machine(), **given)
    assert "alias /srv/static/app/;" in conf


def test_the_roll_out_can_see_what_a_replica_speaks(compose: Compose) -> None:
    """This includes replicas of a release before, because nginx must speak what all of them understand."""
    content = compose([APP | {"server": "uwsgi"}, {key: API[key] for key in API if key != "server"}])["services"]
    assert [content[name]["labels"][PROTOCOL_LABEL] for name in ("app", "api-2")] == ["uwsgi", "http"]


@both
def test_nginx_starts_after_the_services(compose: Compose, services: list[dict[str, Any]]) -> None:
    """It is stopped before them, so that no request meets an empty stack."""
    assert compose(services)["services"]["nginx"]["depends_on"] == [service["name"] for service in services]


@pytest.mark.parametrize(
    ("version", "interval"),
    [("20.10.24+dfsg1", {}), ("24.0.9", {}), *((version, {"start_interval": "1s"}) for version in ("25.0.0", "29.1"))],
)
def test_old_engine_is_not_asked_for_what_it_refuses(compose: Compose, version: str, interval: dict[str, str]) -> None:
    """Debian 12's engine knows no start_interval; the check itself stays the image's everywhere."""
    services = compose([APP, API], __stack_machine=machine(version), stack_hang_seconds=15)["services"]
    assert services["nginx"].get("healthcheck", {}) == interval
    for name in ("app", "api-2"):
        assert services[name]["healthcheck"] == interval | {"timeout": "80s"}


@pytest.mark.parametrize(("cgroup", "shares"), [("1", 4096), ("2", 10463)])
def test_nginx_has_four_times_the_weight_of_a_replica(compose: Compose, cgroup: str, shares: int) -> None:
    services = compose([APP], __stack_machine=machine(cgroup=cgroup))["services"]
    assert services["nginx"]["cpu_shares"] == shares
    assert "cpu_shares" not in services["app"]


@pytest.mark.parametrize("hang", [0, 1, 15, "3600"])
def test_health_check_may_take_as_long_as_it_waits(compose: Compose, hang: int | str) -> None:
    """Otherwise the engine would end the check before it could end a server that hangs."""
    app = compose([APP], stack_hang_seconds=hang)["services"]["app"]
    assert app["environment"]["HANG_SECONDS"] == str(hang)
    assert seconds(app["healthcheck"]["timeout"]) > 2 * max(int(hang), 2)


@pytest.mark.parametrize("given", [{}, {"timeout_seconds": 120, "streaming": True}])
def test_health_check_knows_how_long_a_request_may_take(compose: Compose, given: dict[str, Any]) -> None:
    app = compose([APP | given])["services"]["app"]
    assert app["environment"]["SILENCE_SECONDS"] == str(given.get("timeout_seconds", 30))


def test_replica_knows_its_port_and_its_service(compose: Compose) -> None:
    """The name lets it refuse requests for a service that had its address before."""
    services = compose([APP, API | {"port": 5001}])["services"]
    told = {name: services[name]["environment"] for name in ("app", "api-2")}
    known = {name: (one["PORT"], one["SERVICE"]) for name, one in told.items()}
    assert known == {"app": ("5000", "app"), "api-2": ("5001", "api-2")}
    # The roll-out reads there that this nginx finds replicas at the port that they had before.
    assert PORTS_LABEL in services["nginx"]["labels"]


def test_replicas_are_published_on_loopback_where_it_is_wanted(compose: Compose) -> None:
    """Each gets a free port, and the network that this needs leads nowhere else."""
    content = compose([APP | {"publish": True, "port": 5001}, API])
    assert content["services"]["app"]["ports"] == ["127.0.0.1::5001"]
    assert content["services"]["app"]["expose"] == ["5001"]
    assert content["services"]["app"]["networks"] == ["app.inside", "app.published"]
    options = content["networks"]["app.published"]["driver_opts"]
    assert options == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert "ports" not in content["services"]["api-2"]
    assert "api-2.published" not in content["networks"]


def test_secrets_are_a_mounted_folder_and_nothing_else(compose: Compose) -> None:
    """A value in the file, an environment variable or a command would be visible in `docker inspect`."""
    content = compose([APP | {"secrets": {"secret_key": "the-canary"}}, API])
    (mount,) = [one for one in content["services"]["app"]["volumes"] if one["target"] == "/run/secrets"]
    assert mount["read_only"] is True
    assert mount["bind"] == {"create_host_path": False}, "a replica would start without its secrets"
    assert re.fullmatch(r"./secrets/app-[0-9a-f]{12}", mount["source"])
    assert "/run/secrets" not in str(content["services"]["api-2"])
    assert "the-canary" not in str(content)


def test_environment_arrives_as_it_was_written(compose: Compose) -> None:
    """Compose would replace $NAME by a variable's value, and YAML makes numbers of what looks like one."""
    given = {"TZ": "Europe/Berlin", "PRICE": "5$ ${HOME}", "VERSION": "1.10", "EMPTY": ""}
    given |= {"TEXT": 'a "b": {c}\nd', "ANY": ANY_TEXT}
    environment = compose([APP | {"environment": given}, API])["services"]["app"]["environment"]
    assert {name: environment[name].replace("$$", "$") for name in given} == given
    assert environment["PRICE"] == "5$$ $${HOME}"


def test_paths_of_a_service_are_added_to_those_of_the_image(compose: Compose) -> None:
    """Without the image's own paths neither the server nor the secrets would be found."""
    given = {"PATH": "/srv/app/bin", "PYTHONPATH": "lib"}
    environment = compose([APP | {"environment": given}])["services"]["app"]["environment"]
    assert environment["PATH"].startswith("/srv/app/bin:/opt/venv/bin:")
    assert environment["PYTHONPATH"] == "lib:/opt/fleet"


def test_what_the_stack_sets_is_what_a_service_cannot_set(compose: Compose) -> None:
    """Preflight refuses these names; of two equal keys in a mapping only one would be read."""
    assert sorted(compose([APP])["services"]["app"]["environment"]) == sorted(STACK_ENVIRONMENT)
