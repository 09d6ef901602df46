"""nginx.conf: where requests go, what a client cannot forge, and when another replica is asked."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from audit.nginx import API, APP, LIVE, SEVERAL, SHOP, TLS
from bench.render import MANAGED, Renderer, machine
from plugins.filter.routes import DEFAULTS
from tests.project import ROOT, load_mapping

SERVICES = [[APP], [APP, API], [APP, API, LIVE], SEVERAL]
FOLDER = "/etc/nginx/stack"

Conf = Callable[..., str]

each = pytest.mark.parametrize("services", SERVICES, ids=len)


@pytest.fixture
def conf(render: Renderer) -> Conf:
    names = {"stack_host_names": ["www.example.test", "example.test"]}

    def rendered(services: list[dict[str, Any]], **more: Any) -> str:
        given = {"inventory_hostname": "web", "__stack_machine": machine(processors=2), "stack_services": services}
        return render("stack", "nginx/nginx.conf.j2", **given | (names if SHOP in services else {}) | more)

    return rendered


def block(text: str, head: str) -> str:
    """Return the content of the only block that begins so."""
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
    """Return the published server."""
    (server,) = (part for part in text.split("\n    server {")[1:] if "listen 80 " in part)
    return server


def named_servers(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the servers that have names, by those: the ones for visitors, and the ones for the other services."""
    both: tuple[dict[str, str], dict[str, str]] = {}, {}
    for part in text.split("\n    server {")[1:]:
        for name in values(part, "server_name"):
            both[values(part, "listen") == ["8000"]][name] = part
    return both


def is_uwsgi(service: dict[str, Any]) -> bool:
    return service.get("server") == "uwsgi"


CURVES = "X25519:prime256v1:secp384r1"


@pytest.mark.parametrize(
    ("more", "directive", "found"),
    [
        # In a container auto may count the CPUs of another machine.
        ({}, "worker_processes", "2"),
        # With all connections in use the kernel must not kill nginx; two workers share the memory.
        ({"stack_nginx_memory": "128m"}, "worker_connections", "1024"),
        ({"stack_nginx_memory": "1g"}, "worker_connections", "4096"),
        ({"stack_nginx_memory": "6m"}, "worker_connections", "64"),
        # Each slow client holds a connection.
        ({"stack_client_seconds": 7}, "client_header_timeout", "7s"),
        ({"stack_client_seconds": 7}, "(?:client_body|send)_timeout", "7s"),
        # Nginx refuses the whole configuration for one curve that OpenSSL does not know.
        *((TLS | {"__stack_machine": machine(openssl=one)}, "ssl_ecdh_curve", CURVES) for one in ("3.0.17", "3.4.1")),
        *(
            (TLS | {"__stack_machine": machine(openssl=one)}, "ssl_ecdh_curve", f"X25519MLKEM768:{CURVES}")
            for one in ("3.5.0", "3.10.0")
        ),
    ],
)
def test_directive_follows_from_the_machine_and_the_variables(
    conf: Conf, more: dict[str, Any], directive: str, found: str
) -> None:
    assert values(conf([APP], **more), directive) == [found]


@each
def test_file_is_whole(conf: Conf, services: list[dict[str, Any]]) -> None:
    text = conf(services)
    assert text.startswith(f"#\n# {MANAGED}\n#\n")
    assert text.count("{") == text.count("}")
    assert "{{" not in text
    assert "{%" not in text


@each
def test_one_upstream_per_service(conf: Conf, services: list[dict[str, Any]]) -> None:
    text = conf(services)
    pools = {one["name"]: [one["name"]] + [f"{one['name']}.once"] * (not is_uwsgi(one)) for one in services}
    upstreams = re.findall(r"^\s*upstream (\S+) \{", text, re.MULTILINE)
    assert upstreams == [pool for pair in pools.values() for pool in pair]
    for name, (kept, *once) in pools.items():
        for pool in (kept, *once):
            assert f'require("balancer").pick("{name}")' in block(text, f"upstream {pool}")
        inside = block(text, f"upstream {kept}")
        # Its protocol ends a connection after the answer.
        assert ("keepalive" in inside) is bool(once)
        # nginx ignores `keepalive` when it stands before the balancing method.
        assert inside.index("balancer_by_lua_block") < inside.find("keepalive") or not once


def locations(server: str) -> dict[str, str]:
    """Return the content of a server's locations, by the path that they match."""
    heads = re.findall(r"^\s*(location (?:= )?/\S*) \{", server, re.MULTILINE)
    return {head.removeprefix("location "): block(server, head) for head in heads}


def leads_to(location: str) -> str:
    """Return the service that gets the requests of a location."""
    (target,) = values(location, "(?:proxy|uwsgi)_pass")
    (service,) = values(location, r"set \$service")
    assert target in (f"http://{service}$upstream_pool", service)
    return service


@pytest.mark.parametrize(
    ("path", "matched"),
    [("/", ["/"]), ("/api", ["/api/", "= /api"]), ("/api/", ["/api/", "= /api"]), ("/a/b", ["/a/b/", "= /a/b"])],
)
def test_paths_are_matched_by_whole_segments(conf: Conf, path: str, matched: list[str]) -> None:
    """Requests for /apix are not the api's, and a location /api/ alone would make nginx redirect /api to it."""
    found = locations(served(conf([{"name": "a", "path": path}, *([APP] if path != "/" else [])])))
    assert [match for match, inside in found.items() if leads_to(inside) == "a"] == matched


def test_a_service_without_a_path_has_the_root(conf: Conf) -> None:
    ((match, inside),) = locations(served(conf([{"name": "app"}]))).items()
    assert (match, leads_to(inside)) == ("/", "app")


@each
def test_every_request_has_a_service(conf: Conf, services: list[dict[str, Any]]) -> None:
    """This holds for any path, in the server for any host, and no location takes a path away that a page links to."""
    found = locations(served(conf(services)))
    own = [one for one in services if "host" not in one]
    assert {leads_to(inside) for inside in found.values() if "alias" not in inside} == {one["name"] for one in own}
    assert "/" in found


def test_a_host_has_a_server_of_its_own(conf: Conf) -> None:
    text = conf(SEVERAL)
    mine, others = servers(text)["80"], served(text)
    assert values(mine, "server_name") == ["example.test"]
    assert {leads_to(inside) for inside in locations(mine).values()} == {"shop"}
    assert "shop" not in others
    for same in ("return 421;", "return 503;", "location @unavailable", "location @too_many", "if ($uri = /healthz)"):
        assert same in mine
        assert same in others


def test_a_host_has_a_server_of_its_own_behind_https(conf: Conf) -> None:
    text = conf(SEVERAL, **TLS)
    of_rest, mine = [part for part in text.split("\n    server {")[1:] if "listen 443 ssl;" in part]
    assert values(of_rest, "server_name") == ["www.example.test"]
    assert values(mine, "server_name") == ["example.test"]
    assert 'example.test "";' in block(text, "map $host $strange_name")
    # All names have services of their own: nobody can ask for the rest but for its health, over plain HTTP.
    alone = conf([APP, SHOP], **TLS | {"stack_host_names": ["example.test"]})
    assert list(named_servers(alone)[0]) == ["example.test"]
    assert "http://app$upstream_pool" in block(servers(alone)["80 default_server"], "location = /healthz")


@each
def test_every_service_has_its_own_limits(conf: Conf, services: list[dict[str, Any]]) -> None:
    """The error names that service's limit; an error page in a location replaces those of the server."""
    text = conf(services, stack_body_bytes=2000)
    largest = {service["name"]: service.get("body_bytes", 2000) for service in services}
    for server in (part for part in text.split("\n    server {")[1:] if "too_large" in part):
        for location in locations(server).values():
            (name,) = values(location, r"set \$service")
            assert values(location, "client_max_body_size") == [str(largest[name])]
            pages = [f"413 @{name}.too_large", "429 @too_many", "500 503 =503 @unavailable"]
            assert values(location, "error_page") == pages
            said = block(server, f"location @{name}.too_large")
            assert f'return 413 "The body of a request may have at most {largest[name]} bytes.\\n";' in said
            for page in ("location @too_many", "location @unavailable"):
                assert page in server
    # Where requests are only led elsewhere, none is refused for a length that a service allows.
    assert values(text.split("\n    server {")[0], "client_max_body_size") == [str(max(largest.values()))]


def test_streaming_is_for_who_asks_for_it(conf: Conf) -> None:
    """Other answers are buffered for slow clients, so that no thread of the server waits for them."""
    text = conf(SEVERAL)
    live, app = locations(served(text))["/live/"], locations(served(text))["/"]
    (shop,) = locations(servers(text)["80"]).values()
    assert values(live, "proxy_buffering") == values(shop, "uwsgi_buffering") == ["off"]
    assert (values(live, "send_timeout"), values(shop, "send_timeout")) == (["120s"], ["60s"])
    assert "set $streaming yes;" in live
    assert "set $streaming yes;" in shop
    assert "streaming" not in app
    assert "buffering" not in app


def test_only_websockets_pass_and_only_where_wanted(conf: Conf) -> None:
    """Another protocol, such as HTTP/2 without TLS, would carry requests that nginx does not see."""
    text = conf([APP])
    upgrade = cases(text, "map $streaming:$request_method:$http_upgrade $upstream_upgrade")
    assert upgrade == {"default": '""', '"~*^yes:GET:websocket$"': "websocket"}
    assert "Upgrade $upstream_upgrade" in values(text, "proxy_set_header")
    assert 'set $streaming "";' in served(text)


@each
def test_balancer_watches_every_service(conf: Conf, services: list[dict[str, Any]]) -> None:
    text = conf(services)
    for one in services:
        uwsgi, port = ("true", 8080) if is_uwsgi(one) else ("false", one.get("port", 5000))
        network = f'network = "flask-fleet_{one["name"]}.inside",'
        entry = rf'name = "{one["name"]}", {network}\s+uwsgi = {uwsgi}, port = {port}, ready_path = "/readyz",'
        # An answer that may pause is not asked for twice.
        times = f"retry_s = {0 if one.get('streaming') else 8}, read_s = {one.get('timeout_seconds', 30) + 5},"
        assert re.search(rf"{entry}\s+{times}", text)
    assert text.count("ready_path") == len(services)


def test_balancer_hashes_the_file_that_runs(conf: Conf) -> None:
    """The role sees from this hash whether nginx runs the new file, so it must be that of the file that nginx reads."""
    assert f'require("balancer").init("{FOLDER}/nginx.conf", {{' in conf([APP])
    assert f'"-c", "{FOLDER}/nginx.conf"' in (ROOT / "files/images/nginx/Dockerfile").read_text(encoding="utf-8")


@each
def test_client_cannot_claim_another_address(conf: Conf, services: list[dict[str, Any]]) -> None:
    """The app trusts one proxy, so whatever the client sends is replaced and never appended to."""
    text = conf(services)
    headers = dict(value.split(maxsplit=1) for value in values(text, "proxy_set_header"))
    told = {"X-Forwarded-For": "$remote_addr", "X-Real-IP": "$remote_addr", "X-Forwarded-Proto": "$scheme"}
    told |= dict.fromkeys(("Host", "X-Forwarded-Host"), "$host_and_port")
    # By the name a replica refuses what is meant for a service that had its address before.
    assert headers | told | {"X-Request-ID": "$request_id", "X-Flask-Fleet-Service": "$service"} == headers
    forwarded = {f"X-Forwarded-{name}" for name in ("Port", "Prefix", "Protocol", "Ssl")}
    assert {headers[name] for name in forwarded | {"Forwarded", "Proxy", "X-Scheme", "X-Script-Name"}} == {'""'}
    assert "$proxy_add_x_forwarded_for" not in text
    assert "$http_x_" not in text


def test_uwsgi_is_told_the_same(conf: Conf) -> None:
    """It gets the values under its own names; an empty value overrides what the client sent."""
    text = conf(SEVERAL)
    params = [value.split() for value in values(text, "uwsgi_param")]
    told = {name.removeprefix("HTTP_"): value for name, value, *_ in params}
    headers = dict(value.split(maxsplit=1) for value in values(text, "proxy_set_header"))
    for name, value in headers.items():
        assert told[name.upper().replace("-", "_")] == value, name
    # About a connection that uWSGI does not have; werkzeug would not read a body that came in chunks.
    assert {told[name] for name in ("TRANSFER_ENCODING", "EXPECT", "TE", "TRAILER", "KEEP_ALIVE")} == {'""'}
    assert "include /etc/nginx/uwsgi_params;" in text
    assert [name for name, *_ in params if not name.startswith("HTTP_")] == []
    for directive in ("hide_header", "connect_timeout", "next_upstream_timeout", "max_temp_file_size"):
        assert values(text, f"uwsgi_{directive}") == values(text, f"proxy_{directive}") != []
    assert set(values(text, "uwsgi_next_upstream")[0].split()) == {"error", "timeout", "http_503"}
    assert "uwsgi_p" not in conf([APP])


def cases(text: str, head: str) -> dict[str, str]:
    """Return what a map makes of each value."""
    return dict(re.findall(r"(\S+)\s+(\S+);", block(text, head)))


@pytest.mark.parametrize(
    ("written", "port"),
    [
        *(("localhost:7151", ":7151"), ("[::1]:7151", ":7151"), ("a:65535", ":65535")),
        *((host, "") for host in ("localhost", "[::1]", "localhost:", "a:1:2", "a:2x")),
        *((f"a:{number}", "") for number in (0, 65536, 70000, 99999, 100000)),
    ],
)
def test_app_learns_the_port_that_the_client_wrote(conf: Conf, written: str, port: str) -> None:
    """It does not get the name in a header that nginx did not check: with an absolute URI it may be any."""
    text = conf([APP])
    inside = block(text, "map $http_host $port_in_host")
    (pattern,) = re.findall(r'"~(\S+)" \$port;', inside)
    found = re.search(pattern.replace("(?<", "(?P<"), written)
    assert (found["port"] if found else "") == port
    assert cases(text, "map $host $host_and_port")["default"] == "$host$port_in_host"


@pytest.mark.parametrize(
    ("more", "site"),
    [
        ({"ansible_host": "192.0.2.7"}, "192.0.2.7"),
        ({"ansible_host": "192.0.2.7", "stack_port": 7151}, "192.0.2.7:7151"),
        ({"stack_host_names": ["example.test"], "stack_port": "7151"}, "example.test:7151"),
        (TLS, "www.example.test"),
        (TLS | {"stack_https_port": 7154}, "www.example.test:7154"),
    ],
)
def test_who_names_no_host_asks_for_the_site(conf: Conf, more: dict[str, Any], site: str) -> None:
    """HTTP/1.0 needs no Host header, and the app would make links to 0.0.0.0 or to nothing."""
    assert cases(conf([APP], **more), "map $host $host_and_port")['""'] == site


def test_largest_headers_pass_nginx_and_every_server(conf: Conf) -> None:
    """The limit is the same both ways: cookies of an answer must be able to come back, in HTTP/1.1 in one line."""
    text = conf(SEVERAL)
    assert values(text, "large_client_header_buffers") == ["1 32k"]
    # Granian takes 100 lines, and nginx adds up to 7.
    assert values(text, "max_headers") == ["90"]
    for protocol in ("proxy", "uwsgi"):
        (head,) = values(text, f"{protocol}_buffer_size")
        assert int(head.removesuffix("k")) > 32
        (number, size) = values(text, f"{protocol}_buffers")[0].split()
        # nginx does not start otherwise.
        (busy,) = values(text, f"{protocol}_busy_buffers_size")
        assert busy == head
        assert (int(number) - 1) * int(size.removesuffix("k")) >= int(head.removesuffix("k"))


def test_long_uri_is_refused_for_every_service_alike(conf: Conf) -> None:
    """Nginx refuses it, because uWSGI would not say why and gunicorn has a lower limit than the others."""
    text = conf(SEVERAL)
    (pattern,) = re.findall(r'"~(\S+)" yes;', block(text, "map $request_uri $uri_too_long"))
    assert not re.search(pattern, "/" + "a" * 8191)
    assert re.search(pattern, "/" + "a" * 8192)
    for server in (part for part in text.split("\n    server {")[1:] if "too_large" in part):
        for location in locations(server).values():
            assert values(block(location, "if ($uri_too_long)"), "return") == ["414"]


def test_connections_to_replicas_are_kept_for_what_can_be_repeated(conf: Conf) -> None:
    """Keep-alive needs HTTP/1.1 and an empty Connection header; a POST gets a connection of its own."""
    text = conf([APP])
    headers = cases(text, "map $upstream_upgrade:$request_method $upstream_connection")
    assert values(text, "proxy_http_version") == ["1.1"]
    assert "Connection $upstream_connection" in values(text, "proxy_set_header")
    repeatable = {":GET": '""', ":HEAD": '""', ":OPTIONS": '""'}
    assert headers == {"default": "close", '"~^websocket:"': "upgrade", **repeatable}
    # One fact, two uses: what is not kept is not taken from those that are.
    assert cases(text, "map $upstream_connection $upstream_pool") == {"default": ".once", '""': '""'}
    assert "keepalive" not in block(text, "upstream app.once")


def test_overload_is_answered_with_503(conf: Conf) -> None:
    """Without this nginx answers 500 for a balancer without a free replica; clients also learn when to come again."""
    text = conf([APP])
    assert "500 503 =503 @unavailable" in values(text, "error_page")
    assert "503: 30;" in block(text, "map $status:$upstream_http_retry_after $add_retry_after")
    assert "}, 32)" in text


@each
def test_unsafe_request_is_never_sent_twice(conf: Conf, services: list[dict[str, Any]]) -> None:
    (conditions,) = values(conf(services), "proxy_next_upstream")
    assert "non_idempotent" not in conditions
    assert {"error", "timeout", "http_502", "http_503"} == set(conditions.split())


def test_both_ends_agree_on_times(conf: Conf) -> None:
    """Nginx closes an idle connection first, and gives up a slow request last."""
    text = conf([APP])
    (idle,) = values(block(text, "upstream app"), "keepalive_timeout")
    (reading,) = re.findall(r"read_s = (\d+),", text)
    assert int(idle.removesuffix("s")) < load_mapping(ROOT / "roles/stack/vars/main.yml")["__stack_keepalive_seconds"]
    assert int(reading) > DEFAULTS["timeout_seconds"]


@pytest.mark.parametrize("more", [{}, TLS], ids=["HTTP", "HTTPS"])
def test_every_server_with_replicas_lets_clients_go(conf: Conf, more: dict[str, Any]) -> None:
    """It does so before nginx ends; until then the client decides about its connection, as with WebSocket."""
    servers = conf(SEVERAL, **more).split("\n    server {")[1:]
    proxying = [server for server in servers if "_pass " in server]
    assert len(proxying) == (3 if more else 2) + len(SEVERAL)
    for server in proxying:
        assert values(server, r"set \$connection_of_client") == ["$http_connection", "close"]
        assert values(block(server, "if (-f /tmp/closing)"), r"set \$connection_of_client") == ["close"]
        assert values(server, "more_set_input_headers") == ['"Connection: $connection_of_client"']


def test_only_the_balancers_page_is_beside_the_public_server(conf: Conf) -> None:
    """Its page on the replicas is for this container only; a service without others has no internal server."""
    assert values(conf([APP]), "listen") == ["80 default_server", "127.0.0.1:8081"]


@pytest.mark.parametrize("more", [{}, TLS], ids=["HTTP", "HTTPS"])
def test_services_are_asked_by_each_others_names(conf: Conf, more: dict[str, Any]) -> None:
    """Every path is passed on unchanged and answered as in public; a request with another name is refused."""
    text = conf(SEVERAL, **more)
    found = named_servers(text)[1]
    assert list(found) == [f"{service['name']}.internal" for service in SEVERAL]
    public = [part for part in text.split("\n    server {")[1:] if "too_large" in part and part not in found.values()]
    answers = {leads_to(one): one for part in public for one in locations(part).values() if "alias" not in one}
    for service in SEVERAL:
        server = found[f"{service['name']}.internal"]
        assert locations(server).keys() == {"/"}
        assert locations(server)["/"] == answers[service["name"]]
        # HTTPS, maintenance and the site's names are for visitors.
        for visitors in ("return 421", "return 30", "return 503", "ssl", "maintenance", "$strange_name", "alias"):
            assert visitors not in server
    assert values(servers(text)["8000 default_server"], "return") == ["421"]
    assert values(servers(text)["8000 default_server"], "(?:proxy|uwsgi)_pass") == []


def test_services_ask_where_compose_leads_them(conf: Conf, render: Renderer) -> None:
    given = {"stack_images": {"nginx": "n:0", "app": "a:0", "api-2": "b:0"}, "__stack_machine": machine()}
    compose = yaml.load(render("stack", "compose.yml.j2", stack_services=[APP, API], **given), yaml.CSafeLoader)
    networks = compose["services"]["nginx"]["networks"].values()
    aliases = {alias for network in networks for alias in (network or {}).get("aliases", [])}
    assert aliases == named_servers(conf([APP, API]))[1].keys()


def test_nginx_writes_only_where_it_can(conf: Conf) -> None:
    """The container is read-only and its user is not root, so every path to write to is in /tmp or a stream."""
    text = conf([APP])
    paths = [*values(text, "pid"), *values(text, r"\w+_temp_path")]
    assert len(paths) == 6
    assert [path for path in paths if not path.startswith("/tmp/")] == []  # noqa: S108 - in a container
    (errors,), (access, *_) = values(text, "error_log"), values(text, "access_log")
    assert errors.split()[0] == "stderr"
    assert access.split()[0] == "/dev/stdout"


def test_a_header_is_added_in_one_place_only(conf: Conf) -> None:
    """One add_header inside a server or location would disable all those above it, as with proxy_set_header."""
    text = conf(SEVERAL)
    outside = text.split("\n    server {")[0]
    for directive in ("add_header", "proxy_set_header", "uwsgi_param"):
        assert values(text, directive) == values(outside, directive) != []


def test_an_app_that_sets_a_header_is_left_alone(conf: Conf) -> None:
    """Browsers treat a repeated header differently, so ours is sent only where there is none."""
    text = conf([APP])
    added = dict(value.removesuffix(" always").split() for value in values(text, "add_header"))
    # This one is nginx's own: the app's would not be found in the log.
    assert added.pop("X-Request-ID") == "$request_id"
    assert "X-Request-ID" in values(text, "proxy_hide_header")
    assert len(added) == 7
    for name, variable in added.items():
        own = f"$upstream_http_{name.lower().replace('-', '_')}"
        assert re.search(rf"map (\$static:)?(\$status:)?{re.escape(own)} {re.escape(variable)} \{{", text), name


def log_line(text: str, **variables: str) -> dict[str, Any]:
    """Write a line as nginx would with these variables and empty ones, and read it."""
    (parts,) = re.findall(r"log_format requests escape=json\s+('.*?');$", text, re.MULTILINE | re.DOTALL)
    template = "".join(re.findall(r"'([^']*)'", parts))
    line: dict[str, Any] = json.loads(re.sub(r"\$(\w+)", lambda found: variables.get(found[1], ""), template))
    return line


NUMBERS = {"log_status": "200", "bytes_sent": "9", "request_time": "0.004"}


def test_log_has_an_object_per_line(conf: Conf) -> None:
    """Programs read it: numbers are numbers, and what went to several replicas is text with a part for each."""
    assert log_line(conf([APP]), **NUMBERS, request_id="1f", service="app", upstream_addr="a:1, b:1") == {
        **dict.fromkeys(("time", "host", "client", "method", "uri", "user_agent", "referer"), ""),
        **dict.fromkeys(("upstream_seconds", "upstream_status"), ""),
        "request_id": "1f",
        "service": "app",
        "upstream": "a:1, b:1",
        "status": 200,
        "bytes": 9,
        "seconds": 0.004,
    }
    assert log_line(conf([APP], **TLS), **NUMBERS, ssl_protocol="TLSv1.3")["tls"] == "TLSv1.3"
    assert "/dev/stdout requests buffer=64k flush=1s" in values(conf([APP]), "access_log")


def test_time_in_the_log_has_milliseconds(conf: Conf) -> None:
    inside = block(conf([APP]), "map $time_iso8601$msec $log_time")
    (pattern, result) = re.findall(r'"(~\S+)" (\S+);', inside)[0]
    found = re.match(pattern.removeprefix("~").replace("(?<", "(?P<"), "2026-11-22T02:03:04+00:001795312984.056")
    assert found
    written = re.sub(r"\$(\w+)", lambda name: found[name[1]], result)
    assert written == "2026-11-22T02:03:04.056+00:00"


def test_status_in_the_log_is_a_number(conf: Conf) -> None:
    """Nginx writes 009 for a request of HTTP/0.9, and 000 for one that was never answered."""
    inside = block(conf([APP]), "map $status $log_status")
    (pattern,) = re.findall(r'"~(\S+)"', inside)
    digits = re.compile(pattern.replace("(?<", "(?P<"))
    found = [digits.match(status) for status in ("009", "000", "200")]
    assert [one and one["digits"] for one in found] == ["9", "0", None]


def test_static_files_are_served_without_the_app(conf: Conf) -> None:
    """They come from the folder that compose.yml mounts; a file that is not there may be a page of the app."""
    server = served(conf(SEVERAL))
    files = locations(server)["/static/"]
    assert values(files, "alias") == ["/srv/static/app/"]
    assert values(files, "try_files") == ["$uri @app.app"]
    assert values(files, "gzip_static") == ["on"]
    assert "_pass" not in files
    fallback = block(server, "location @app.app")
    assert leads_to(fallback) == "app"
    # It is an answer of the app, whatever its address.
    assert 'set $static "";' in fallback
    assert [head for head in locations(server) if head.startswith("/static")] == ["/static/"]


@pytest.mark.parametrize(
    ("name", "for_ever"),
    [
        *((one, True) for one in ("site.0123456789ab.css", "a-deadbeef.js", "a.deadbeef.min.js", "a-0123456f.js.map")),
        *((one, False) for one in ("site.css", "a.1234567.js", "a.ghijklmn.js", "a-20261122.js")),
        *((one, False) for one in ("deadbeef.js", "a.deadbeef", "a.DEADBEEF.b/c")),
        # What the query says of the content, nobody here can check: after a rollback it would be wrong for a year.
        ("site.css?v=0123456789ab", False),
    ],
)
def test_only_names_of_their_content_are_kept_for_ever(conf: Conf, name: str, *, for_ever: bool) -> None:
    """Browsers ask for all others again each time, which costs no body while they are the same."""
    text = conf([APP])
    inside = block(text, "map $uri $static_cache_control")
    (pattern,) = re.findall(r'"~(\S+)"\s+"public, max-age=31536000, immutable"', inside)
    assert bool(re.search(pattern, f"/static/{name}".partition("?")[0])) is for_ever
    assert re.search(r"default\s+no-cache;", inside)


def test_only_files_that_are_there_are_kept(conf: Conf) -> None:
    """Neither the 404 for a file of the next release nor an answer of the app may be kept."""
    inside = block(conf([APP]), "map $static:$status:$upstream_http_cache_control $add_cache_control")
    (pattern,) = re.findall(r'"~(\S+)" \$static_cache_control;', inside)
    kept = [one for one in ("200", "206", "304", "404", "503", "301") if re.search(pattern, f"yes:{one}:")]
    assert kept == ["200", "206", "304"]
    assert not re.search(pattern, ":200:")
    assert not re.search(pattern, "yes:200:private")


def test_any_name_is_answered_unless_names_are_given(conf: Conf) -> None:
    """A stack without names is asked by its address; one with names answers no other, except about its health."""
    head = "map $host $strange_name"
    assert cases(conf([APP]), head) == {"default": '""'}
    named = conf([APP], stack_host_names=["a.example", "www.a.example"])
    assert cases(named, head) == {"default": "yes", "a.example": '""', "www.a.example": '""'}
    health = block(named, "if ($uri = /healthz)")
    assert 'set $refused "";' in health
    assert "return 421;" in block(named, "if ($refused)")


@pytest.mark.parametrize("number", [0, 1, "50"])
def test_limits_per_address_can_be_switched_off(conf: Conf, number: int | str) -> None:
    text = conf([APP], stack_requests_per_address=number, stack_connections_per_address=number)
    limits = [*values(text, "limit_req"), *values(text, "limit_conn")]
    wanted = [f"zone=requests burst={number} nodelay", f"connections {number}"]
    assert limits == (wanted if int(number) else [])
    assert set(values(text, "limit_(?:req|conn)_status")) == ({"429"} if int(number) else set())


def servers(text: str) -> dict[str, str]:
    """Return every server by what it listens on."""
    parts = [f"server {{{part}" for part in text.split("\n    server {")[1:]]
    return {values(part, "listen")[0]: block(part.partition("\n    }")[0] + "\n}", "server") for part in parts}


def test_without_a_certificate_there_is_no_https(conf: Conf) -> None:
    text = conf([APP])
    assert [one for one in ("443", "ssl_", "Strict-Transport-Security") if one in text] == []


@each
def test_with_a_certificate_services_are_behind_https_only(conf: Conf, services: list[dict[str, Any]]) -> None:
    """Plain HTTP can be read on the way, so only the health is answered there."""
    found = servers(conf(services, **TLS))
    among_themselves = {"8000", "8000 default_server"} if len(services) > 1 else set()
    public = {"443 ssl", "443 ssl default_server", "80 default_server"}
    assert set(found) == public | among_themselves | {"127.0.0.1:8081"}
    assert {leads_to(inside) for inside in locations(found["443 ssl"]).values()} <= {one["name"] for one in services}
    plain = found["80 default_server"]
    assert values(plain, "(?:proxy|uwsgi)_pass") == ["http://app$upstream_pool"]
    assert leads_to(block(plain, "location = /healthz")) == "app"
    # As over HTTPS, when no replica is ready: who watches takes a 500 for a broken program.
    assert values(plain, "error_page") == ["500 503 =503 @unavailable"]
    assert " ".join(named_servers(conf(services, **TLS))[0]) == "www.example.test example.test"


def test_health_is_asked_of_uwsgi_over_plain_http_too(conf: Conf) -> None:
    plain = servers(conf([APP | {"server": "uwsgi"}], **TLS))["80 default_server"]
    assert values(block(plain, "location = /healthz"), "uwsgi_pass") == ["app"]


@pytest.mark.parametrize(("port", "suffix"), [(443, ""), ("8443", ":8443")])
def test_plain_requests_are_led_to_https(conf: Conf, port: int | str, suffix: str) -> None:
    """The redirect keeps the requested name, which is one of ours here, and method and body if there is one."""
    inside = block(servers(conf([APP], **TLS, stack_https_port=port))["80 default_server"], "location /")
    there = f"https://$host{suffix}$request_uri"
    assert values(inside, "return") == ["421", f"308 {there}", f"301 {there}"]
    assert values(block(inside, "if ($request_method !~ ^(GET|HEAD)$)"), "return")[0].startswith("308 ")


def test_name_of_somebody_else_gets_neither_certificate_nor_redirect(conf: Conf) -> None:
    """A redirect to the name in any Host header could lead people to another site."""
    text = conf([APP], **TLS)
    found = servers(text)
    assert values(found["443 ssl default_server"], "ssl_reject_handshake") == ["on"]
    assert values(block(found["443 ssl default_server"], "location /"), "return") == ["421"]
    assert "return 421;" in block(found["80 default_server"], "if ($strange_name)")
    strange = {"default": "yes", "www.example.test": '""', "example.test": '""'}
    assert cases(text, "map $host $strange_name") == strange


def test_self_signed_certificate_is_served_for_the_address_too(conf: Conf) -> None:
    """A client that uses the address sends no name, which must not count as a wrong one."""
    found = servers(conf([APP], **TLS | {"certificate_mode": "self_signed"}))
    assert values(found["443 ssl"], "server_name") == ["www.example.test example.test 192.0.2.7"]
    default = found["443 ssl default_server"]
    assert values(default, "ssl_reject_handshake") == []
    assert 'if require("ngx.ssl").server_name() then return ngx.exit(ngx.ERROR) end' in default


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "max-age=63072000"),
        ({"stack_hsts_seconds": "0"}, "max-age=0"),
        ({"stack_hsts_seconds": 300, "stack_hsts_subdomains": "yes"}, "max-age=300; includeSubDomains"),
    ],
)
def test_browsers_are_told_to_stay_with_https(conf: Conf, variables: dict[str, Any], expected: str) -> None:
    """The header is on errors and in maintenance too, and never on plain HTTP, where nobody may believe it."""
    text = conf([APP], **TLS, **variables)
    assert block(text, "map $https $add_strict_transport_security").strip() == f'on "{expected}";'
    assert text.count("Strict-Transport-Security") == 1


def test_room_for_long_names_is_made_before_the_first_map(conf: Conf) -> None:
    """After a map nginx calls the directive a duplicate and does not start."""
    text = conf([APP], **TLS)
    assert values(text, "map_hash_bucket_size") == values(text, "server_names_hash_bucket_size") == ["512"]
    assert text.index("map_hash_bucket_size") < text.index("\n    map ")
