"""nginx.conf: which requests go where, what a client cannot claim, and when another replica is asked."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from plugins.filter.sizes import USUAL
from roles.stack.filter_plugins.service_port import service_port
from tests.project import ROOT, load_mapping
from tests.templates.render import MANAGED, Renderer

APP = {"name": "app", "path": "/"}
API = {"name": "api-2", "path": "/api/"}
SERVICES = {"one service": [APP], "two services": [APP, API]}
FOLDER = "/etc/nginx/stack"

Conf = Callable[..., str]

TLS = {
    "certificate_mode": "acme",
    "stack_host_names": ["www.example.test", "example.test"],
    "inventory_hostname": "i-0",
    "ansible_host": "192.0.2.7",
    "__stack_nginx_build": {"stderr": "built with OpenSSL 3.5.4 30 Sep 2025"},
}

both = pytest.mark.parametrize("services", SERVICES.values(), ids=SERVICES.keys())


@pytest.fixture
def conf(render: Renderer) -> Conf:
    """Render the file."""
    facts = {"processor_nproc": 2}
    return lambda services, **more: render("stack", "nginx/nginx.conf.j2", facts=facts, stack_services=services, **more)


def block(text: str, head: str) -> str:
    """Return what is inside the only block that begins so."""
    assert text.count(f"{head} {{") == 1, f"{text.count(f'{head} {{')} blocks {head}"
    rest = text.split(f"{head} {{")[1]
    depth = 1
    for position, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:position]
    pytest.fail(f"{head} is never closed")


def values(text: str, directive: str) -> list[str]:
    """Return the values of a directive, wherever it stands."""
    return re.findall(rf"^\s*{directive}\s+([^;{{]+);", text, re.MULTILINE)


def served(text: str) -> str:
    """Return the server that is published."""
    (server,) = (part for part in text.split("\n    server {")[1:] if "listen 80 " in part)
    return server


def test_workers_are_as_many_as_the_machine_has_cpus(conf: Conf) -> None:
    """What auto counts in a container may be another machine's."""
    assert values(conf([APP]), "worker_processes") == ["2"]


@pytest.mark.parametrize(("memory", "connections"), [("128m", "1024"), ("1g", "4096"), ("6m", "64")])
def test_connections_are_as_many_as_there_is_memory_for(conf: Conf, memory: str, connections: str) -> None:
    """Full of connections, nginx must not be ended by the kernel; two workers share them."""
    assert values(conf([APP], stack_nginx_memory=memory), "worker_connections") == [connections]


@both
def test_file_is_whole(conf: Conf, services: list[dict[str, Any]]) -> None:
    """The header comes first, every block is closed, and nothing of the template is left."""
    text = conf(services)
    assert text.startswith(f"#\n# {MANAGED}\n#\n")
    assert text.count("{") == text.count("}")
    assert "{{" not in text
    assert "{%" not in text


@both
def test_one_upstream_per_service(conf: Conf, services: list[dict[str, Any]]) -> None:
    """Each asks the balancer for replicas of its own service."""
    text = conf(services)
    names = [service["name"] for service in services]
    both_ways = [upstream for name in names for upstream in (name, f"{name}.once")]
    assert re.findall(r"^\s*upstream (\S+) \{", text, re.MULTILINE) == both_ways
    for name in names:
        assert f'require("balancer").pick("{name}")' in block(text, f"upstream {name}.once")
        inside = block(text, f"upstream {name}")
        assert f'require("balancer").pick("{name}")' in inside
        # nginx ignores `keepalive` when it stands before the balancing method.
        assert inside.index("balancer_by_lua_block") < inside.index("keepalive")


@both
def test_one_location_per_service(conf: Conf, services: list[dict[str, Any]]) -> None:
    """Requests whose path begins with a service's go to it, and nothing that a page links to is taken away."""
    server = served(conf(services))
    assert re.findall(r"location (/.*?) \{", server) == [service["path"] for service in services]
    for service in services:
        pools = [f"http://{service['name']}", f"http://{service['name']}.once"]
        assert values(block(server, f"location {service['path']}"), "proxy_pass") == pools


@both
def test_balancer_watches_every_service(conf: Conf, services: list[dict[str, Any]]) -> None:
    """A service that it does not know has no ready replica, ever."""
    entry = r'\{ name = "(\S+)", network = "(\S+)", port = (\d+), ready_path = "(\S+)" \}'
    names = [service["name"] for service in services]
    wanted = [(name, f"flask-fleet_{name}.inside", str(service_port(name)), "/readyz") for name in names]
    assert re.findall(entry, conf(services)) == wanted


def test_balancer_hashes_the_file_that_runs(conf: Conf) -> None:
    """By this hash the role sees whether nginx runs the new file: it must be the one the image starts nginx with."""
    assert f'require("balancer").init("{FOLDER}/nginx.conf", {{' in conf([APP])
    assert f'"-c", "{FOLDER}/nginx.conf"' in (ROOT / "files/images/nginx/Dockerfile").read_text(encoding="utf-8")


@both
def test_client_cannot_claim_another_address(conf: Conf, services: list[dict[str, Any]]) -> None:
    """The app trusts one proxy: whatever the client sends is replaced, never appended to."""
    text = conf(services)
    headers = dict(value.split(maxsplit=1) for value in values(text, "proxy_set_header"))
    assert headers["X-Forwarded-For"] == "$remote_addr"
    assert headers["X-Forwarded-Proto"] == "$scheme"
    assert headers["X-Real-IP"] == "$remote_addr"
    assert headers["X-Forwarded-Host"] == headers["Host"] == "$host"
    others = ("Forwarded", "Proxy", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Protocol", "X-Forwarded-Ssl")
    assert {headers[name] for name in others} == {'""'}
    assert "$proxy_add_x_forwarded_for" not in text
    assert "$http_x_" not in text


@both
def test_no_location_replaces_the_headers(conf: Conf, services: list[dict[str, Any]]) -> None:
    """One proxy_set_header inside a location would undo all those of the server."""
    for service in services:
        inside = block(served(conf(services)), f"location {service['path']}")
        assert values(inside, "proxy_set_header") == []


def cases(text: str, head: str) -> dict[str, str]:
    """Return what a map makes of each value."""
    return dict(re.findall(r"(\S+)\s+(\S+);", block(text, head)))


def test_connections_to_replicas_are_kept_for_what_can_be_repeated(conf: Conf) -> None:
    """HTTP/1.1 and an empty Connection header are what keep-alive needs; a POST gets a connection of its own."""
    text = conf([APP])
    headers = cases(text, "map $request_method $upstream_connection")
    assert values(text, "proxy_http_version") == ["1.1"]
    assert "Connection $upstream_connection" in values(text, "proxy_set_header")
    assert headers == {"default": "close", "GET": '""', "HEAD": '""', "OPTIONS": '""'}
    assert values(block(text, "limit_except GET HEAD OPTIONS"), "proxy_pass") == ["http://app.once"]
    assert "keepalive" not in block(text, "upstream app.once")


def test_overload_is_answered_with_503(conf: Conf) -> None:
    """Not with the 500 that nginx makes of a balancer without a free replica; and clients learn when to come again."""
    text = conf([APP])
    assert "500 503 =503 @unavailable" in values(text, "error_page")
    assert "503: 30;" in block(text, "map $status:$upstream_http_retry_after $add_retry_after")
    assert "requests_per_replica = 32," in text


@both
def test_unsafe_request_is_never_sent_twice(conf: Conf, services: list[dict[str, Any]]) -> None:
    """A payment is not repeated because the first replica was slow to say that it took it."""
    (conditions,) = values(conf(services), "proxy_next_upstream")
    assert "non_idempotent" not in conditions
    assert {"error", "timeout", "http_502", "http_503"} == set(conditions.split())


def test_both_ends_agree_on_times(conf: Conf) -> None:
    """An idle connection is closed by nginx first, and a slow request given up by the server first."""
    text = conf([APP])
    (idle,) = values(block(text, "upstream app"), "keepalive_timeout")
    (reading,) = re.findall(r"read_s = (\d+),", text)
    assert int(idle.removesuffix("s")) < load_mapping(ROOT / "roles/stack/vars/main.yml")["__stack_keepalive_seconds"]
    assert int(reading) > USUAL["timeout_seconds"]


def test_only_the_balancers_page_is_beside_the_public_server(conf: Conf) -> None:
    """What it knows of the replicas is for this container, not for the network."""
    assert values(conf([APP, API]), "listen") == ["80 default_server", "127.0.0.1:8081"]


def test_nginx_writes_only_where_it_can(conf: Conf) -> None:
    """The container is read-only and its user is not root: every path to write to is in /tmp or a stream."""
    text = conf([APP])
    paths = [*values(text, "pid"), *values(text, r"\w+_temp_path")]
    assert len(paths) == 6
    assert [path for path in paths if not path.startswith("/tmp/")] == []  # noqa: S108 - in a container
    (errors,), (access, *_) = values(text, "error_log"), values(text, "access_log")
    assert errors.split()[0] == "stderr"
    assert access.split()[0] == "/dev/stdout"


def test_a_header_is_added_in_one_place_only(conf: Conf) -> None:
    """One add_header inside a server or location would undo all those above it; so would one proxy_set_header."""
    text = conf([APP, API])
    outside = text.split("\n    server {")[0]
    for directive in ("add_header", "proxy_set_header"):
        assert values(text, directive) == values(outside, directive) != []


def test_an_app_that_sets_a_header_is_left_alone(conf: Conf) -> None:
    """Twice the same header means whatever a browser makes of it: ours is sent only where there is none."""
    text = conf([APP])
    added = dict(value.removesuffix(" always").split() for value in values(text, "add_header"))
    assert len(added) == 7
    for name, variable in added.items():
        own = f"$upstream_http_{name.lower().replace('-', '_')}"
        assert re.search(rf"map (\$status:)?{re.escape(own)} {re.escape(variable)} \{{", text), name


def test_any_name_is_answered_unless_names_are_given(conf: Conf) -> None:
    """A stack without a name is asked by its address; one with names answers no other, but tells whether it is well."""
    head = "map $host $strange_name"
    assert cases(conf([APP]), head) == {"default": '""'}
    named = conf([APP], stack_host_names=["a.example", "www.a.example"])
    assert cases(named, head) == {"default": "yes", "a.example": '""', "www.a.example": '""'}
    health = block(named, "if ($uri = /healthz)")
    assert 'set $refused "";' in health
    assert "return 421;" in block(named, "if ($refused)")


@pytest.mark.parametrize("number", [0, 1, "50"])
def test_limits_per_address_can_be_switched_off(conf: Conf, number: int | str) -> None:
    """-e gives numbers as text."""
    text = conf([APP], stack_requests_per_address=number, stack_connections_per_address=number)
    limits = [*values(text, "limit_req"), *values(text, "limit_conn")]
    wanted = [f"zone=requests burst={number} nodelay", f"connections {number}"]
    assert limits == (wanted if int(number) else [])
    assert set(values(text, "limit_(?:req|conn)_status")) == ({"429"} if int(number) else set())


def test_slow_clients_are_cut(conf: Conf) -> None:
    """Each of them holds one of the connections that nginx has."""
    text = conf([APP], stack_client_seconds=7)
    assert values(text, "(?:client_header|client_body|send)_timeout") == ["7s"] * 3


def servers(text: str) -> dict[str, str]:
    """Return every server by what it listens on."""
    parts = [f"server {{{part}" for part in text.split("\n    server {")[1:]]
    return {values(part, "listen")[0]: block(part.partition("\n    }")[0] + "\n}", "server") for part in parts}


def test_without_a_certificate_there_is_no_https(conf: Conf) -> None:
    """Nginx would not start with a certificate that is not there."""
    text = conf([APP])
    assert "443" not in text
    assert "ssl_" not in text
    assert "Strict-Transport-Security" not in text


@both
def test_with_a_certificate_services_are_behind_https_only(conf: Conf, services: list[dict[str, Any]]) -> None:
    """What is sent over plain HTTP can be read on the way; only health is answered there."""
    found = servers(conf(services, **TLS))
    assert set(found) == {"443 ssl", "443 ssl default_server", "80 default_server", "127.0.0.1:8081"}
    paths = [service["path"] for service in services]
    assert re.findall(r"location (/.*?) \{", found["443 ssl"]) == paths
    plain = found["80 default_server"]
    assert values(plain, "proxy_pass") == ["http://app"]
    assert "proxy_pass" in block(plain, "location = /healthz")
    # As over HTTPS, when no replica is ready: who watches takes a 500 for a broken program.
    assert values(plain, "error_page") == ["500 503 =503 @unavailable"]
    assert values(found["443 ssl"], "server_name") == ["www.example.test example.test"]


@pytest.mark.parametrize(("port", "suffix"), [(443, ""), ("8443", ":8443")])
def test_plain_requests_are_led_to_https(conf: Conf, port: int | str, suffix: str) -> None:
    """With the name that was asked for, which is one of ours here, and with method and body where there is one."""
    inside = block(servers(conf([APP], **TLS, stack_https_port=port))["80 default_server"], "location /")
    assert values(inside, "return") == [
        "421",
        f"308 https://$host{suffix}$request_uri",
        f"301 https://$host{suffix}$request_uri",
    ]
    assert values(block(inside, "if ($request_method !~ ^(GET|HEAD)$)"), "return")[0].startswith("308 ")


def test_name_of_somebody_else_gets_neither_certificate_nor_redirect(conf: Conf) -> None:
    """A redirect to whatever a Host header says could be used to lead people away."""
    text = conf([APP], **TLS)
    found = servers(text)
    assert values(found["443 ssl default_server"], "ssl_reject_handshake") == ["on"]
    assert values(block(found["443 ssl default_server"], "location /"), "return") == ["421"]
    assert "return 421;" in block(found["80 default_server"], "if ($strange_name)")
    strange = {"default": "yes", "www.example.test": '""', "example.test": '""'}
    assert cases(text, "map $host $strange_name") == strange


def test_self_signed_certificate_is_served_for_the_address_too(conf: Conf) -> None:
    """Who asks for an address sends no name, which must not be taken for a wrong one."""
    found = servers(conf([APP], **TLS | {"certificate_mode": "self_signed"}))
    assert values(found["443 ssl"], "server_name") == ["www.example.test example.test 192.0.2.7"]
    default = found["443 ssl default_server"]
    assert values(default, "ssl_reject_handshake") == []
    assert 'if require("ngx.ssl").server_name() then return ngx.exit(ngx.ERROR) end' in default


@pytest.mark.parametrize(
    ("openssl", "hybrid"), [("3.0.17", False), ("3.4.1", False), ("3.5.0", True), ("3.10.0", True)]
)
def test_curves_are_those_that_openssl_knows(conf: Conf, openssl: str, *, hybrid: bool) -> None:
    """Nginx refuses the whole configuration for one curve that it does not know."""
    text = conf([APP], **TLS | {"__stack_nginx_build": {"stderr": f"built with OpenSSL {openssl} 1 Jan 2026\n"}})
    (curves,) = values(text, "ssl_ecdh_curve")
    assert curves == ("X25519MLKEM768:" if hybrid else "") + "X25519:prime256v1:secp384r1"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "max-age=63072000"),
        ({"stack_hsts_seconds": "0"}, "max-age=0"),
        ({"stack_hsts_seconds": 300, "stack_hsts_subdomains": "yes"}, "max-age=300; includeSubDomains"),
    ],
)
def test_browsers_are_told_to_stay_with_https(conf: Conf, variables: dict[str, Any], expected: str) -> None:
    """On errors and in maintenance too; never over plain HTTP, where nobody may believe it."""
    text = conf([APP], **TLS, **variables)
    assert block(text, "map $https $add_strict_transport_security").strip() == f'on "{expected}";'
    assert text.count("Strict-Transport-Security") == 1


def test_room_for_long_names_is_made_before_the_first_map(conf: Conf) -> None:
    """Nginx calls it a duplicate after one, and does not start."""
    text = conf([APP], **TLS)
    assert values(text, "map_hash_bucket_size") == values(text, "server_names_hash_bucket_size") == ["512"]
    assert text.index("map_hash_bucket_size") < text.index("\n    map ")
