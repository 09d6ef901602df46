"""Every request has exactly one service, whatever its host and path."""

from typing import Any

import pytest

from plugins.filter.routes import DEFAULTS
from preflight.routes import bad_routes
from preflight.variables import known_variables
from tests.preflight.input import service
from tests.project import ROOT

HOSTS = ["www.example.com", "shop.example.com"]
PATHS = "allowed is a path that begins with /, of letters, digits and the characters . _ ~ - /, without //"
FILES = {"path": "/static/", "folder": "hello/static"}


def problems(*services: dict[str, Any]) -> list[str]:
    return list(bad_routes(list(services), HOSTS))


def api(**changes: Any) -> dict[str, Any]:
    return service(name="api", context="api", path="/api") | changes


def test_services_may_have_hosts_and_paths() -> None:
    """The same path at another host is another route, as is a path that begins with the same letters."""
    assert problems({"name": "app", "context": "app"}) == []
    assert problems(service(static=FILES), api(), api(name="apix", path="/apix")) == []
    assert problems(service(), api(name="shop", host=HOSTS[1], path="/"), api(name="cart", host=HOSTS[1])) == []


def test_specification_tells_the_defaults() -> None:
    """People read the specification, while nginx.conf is made with ``DEFAULTS``."""
    options = known_variables(ROOT / "roles")["stack"]["stack_services"]["options"]
    assert {name: option["default"] for name, option in options.items() if "default" in option} == DEFAULTS


@pytest.mark.parametrize(
    "path", ["api", "", None, "http://example.org/", "/a b", "/a//b", "/;", "/a {", "/\u00e4", "/a\n"]
)
def test_path_has_to_begin_with_a_slash(path: str | None) -> None:
    """Nginx compares it with the beginning of the requested path, which is a slash."""
    assert problems(service(), api(path=path)) == [f"stack_services[1] (api): path is {path!r}: {PATHS}"]


@pytest.mark.parametrize(
    ("first", "second"), [("/", "/"), ("/api", "/api"), ("/api/", "/api"), ("/api/v1", "/api/v1/")]
)
@pytest.mark.parametrize(("host", "named"), [("", ""), (HOSTS[1], f" of {HOSTS[1]}")])
def test_two_services_on_one_path_are_refused(first: str, second: str, host: str, named: str) -> None:
    root = {"name": "root", "context": "app", "host": host}
    given = [service(host=host, path=first), api(host=host, path=second), service(name="any"), root]
    expected = f"stack_services: app and api both have the path {first.rstrip('/') or '/'}{named}"
    assert expected in problems(*given)


def test_static_files_take_the_path_of_no_service() -> None:
    said = "stack_services: the static files of app and api both have the path /static"
    assert problems(service(static=FILES), api(path="/static")) == [said]
    said = "stack_services: api and the static files of api both have the path /api"
    assert problems(service(), api(static=FILES | {"path": "/api/"})) == [said]


def test_somebody_has_to_have_the_root() -> None:
    """Without it every request to / is a 404, and the last play cannot see who answers."""
    for others in (api(), service(host=HOSTS[0])):
        assert problems(others) == ["stack_services: no service without a host has the path /"]
    said = f"stack_services: for the host {HOSTS[0]} there is api (/api), but no service with the path /"
    assert problems(service(), api(host=HOSTS[0])) == [said]


def test_host_has_to_be_one_of_ours() -> None:
    expected = "stack_services[1] (api): host is 'a.example': allowed is one of stack_host_names, which "
    assert problems(service(), api(host="a.example")) == [f"{expected}are {', '.join(HOSTS)}"]
    assert list(bad_routes([service(), api(host="a.example")], [])) == [f"{expected}is empty"]


@pytest.mark.parametrize("host", ["Shop.example.com", "shop.example.com:80", "*", "a b", "a;", 7, None, ["a"]])
def test_host_has_to_be_a_name(host: object) -> None:
    said = f"host is {host!r}: allowed is a host name in small letters that is one of stack_host_names"
    assert problems(service(), api(host=host)) == [f"stack_services[1] (api): {said}"]


@pytest.mark.parametrize("static", ["hello/static", None, {}, {"path": "/static/"}, FILES | {"cache": 1}])
def test_static_files_have_a_path_and_a_folder(static: object) -> None:
    said = f"static is {static!r}: allowed is a mapping such as {{path: /static/, folder: hello/static}}"
    assert problems(service(static=static)) == [f"stack_services[0] (app): {said}"]


@pytest.mark.parametrize("path", ["static", "/", "//", "/a b", None])
def test_static_files_have_a_path_of_their_own(path: object) -> None:
    """At / every page would be looked for among the files."""
    said = f"stack_services[0] (app): static.path is {path!r}: {PATHS}, but not / itself"
    assert problems(service(static=FILES | {"path": path})) == [said]


@pytest.mark.parametrize("folder", ["", "/srv/app/static", "../static", "a/../../b", ".", "a b", "-x", None])
def test_static_files_are_in_a_folder_of_the_image(folder: object) -> None:
    """Otherwise all other files of the image would be public."""
    (problem,) = problems(service(static=FILES | {"folder": folder}))
    assert problem.startswith(f"stack_services[0] (app): static.folder is {folder!r}: allowed is a folder in the image")


@pytest.mark.parametrize("services", [None, "app", ["app"]])
def test_what_is_no_list_of_services_is_named_elsewhere(services: object) -> None:
    assert list(bad_routes(services, HOSTS)) == []
