"""Requests are led to services."""

from plugins.filter.routes import by_host, completed, prefix, root_service

APP = {"name": "app"}
API = {"name": "api", "path": "/api/"}
SHOP = {"name": "shop", "host": "shop.example.com"}
CART = {"name": "cart", "host": "shop.example.com", "path": "/cart"}


def test_what_a_service_says_stays() -> None:
    """The rest is filled in, so that no template has to know it."""
    (app, api) = completed([APP, API | {"body_bytes": 5, "timeout_seconds": 90}], 1000)
    assert (app["path"], app["host"], app["server"], app["body_bytes"]) == ("/", "", "gunicorn", 1000)
    assert (api["path"], api["body_bytes"], api["timeout_seconds"], api["streaming"]) == ("/api/", 5, 90, False)


def test_equal_paths_look_equal() -> None:
    """A slash at the end of a path makes no difference."""
    assert [prefix(path) for path in ("/", "/api", "/api/", "/a/b//")] == ["", "/api", "/api", "/a/b"]


def test_services_are_grouped_by_host() -> None:
    """Those for any host come first, even if there are none."""
    groups = by_host(completed([CART, APP, SHOP, API], 0))
    assert {host: [one["name"] for one in group] for host, group in groups.items()} == {
        "": ["app", "api"],
        "shop.example.com": ["cart", "shop"],
    }
    assert list(by_host(completed([SHOP], 0))) == ["", "shop.example.com"]


def test_the_root_is_the_hosts_own_or_everybodys() -> None:
    """The last play asks at the machine's first name who answers, and how many replicas that should be."""
    services = completed([CART, API, SHOP, APP], 0)
    assert root_service(services, "")["name"] == "app"
    assert root_service(services, "www.example.com")["name"] == "app"
    assert root_service(services, "shop.example.com")["name"] == "shop"
