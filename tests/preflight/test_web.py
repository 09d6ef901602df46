"""Values that would make a server that answers nobody, or an nginx.conf with another meaning, are refused."""

import pytest

from preflight import web


@pytest.mark.parametrize(
    "names", [[], ["example.com"], ["a.b-c.example", "xn--bcher-kva.example"], ["localhost", "127.0.0.1"]]
)
def test_host_names_are_allowed(names: object) -> None:
    assert list(web.bad_host_names({"stack_host_names": names})) == []


@pytest.mark.parametrize(
    "name",
    [
        *("EXAMPLE.com", "*.example.com", "example.com:80", "https://example.com", "10.0.0.1/8", "10.0.0.256", ""),
        *("a.example;", "a.example\n", "a b.example", "b\u00fccher.example", f"{'a' * 64}.example", "a.example."),
        *("-a.example", "a-.example", "a..b", ".".join(["abcdefgh"] * 29)),
    ],
)
def test_what_is_no_host_name_is_refused(name: str) -> None:
    (problem,) = web.bad_host_names({"stack_host_names": ["ok.example", name]})
    assert problem.startswith(f"stack_host_names[1] is {name!r}: allowed is a host name")


def test_text_is_no_list_of_names() -> None:
    """Templates would treat a text as a list of letters."""
    (problem,) = web.bad_host_names({"stack_host_names": "a.example"})
    assert problem.endswith("""allowed is a list, such as -e '{"stack_host_names": ["a.example"]}'""")


def test_the_same_name_twice_is_refused() -> None:
    (problem,) = web.bad_host_names({"stack_host_names": ["a.example", "a.example"]})
    assert problem == "stack_host_names: a.example is there twice"


@pytest.mark.parametrize("policy", ["", "default-src 'self' https://cdn.example; img-src *", "script-src 'nonce-{}'"])
def test_policies_are_allowed(policy: str) -> None:
    assert list(web.bad_policy({"stack_content_security_policy": policy})) == []


@pytest.mark.parametrize("policy", ['a"; return 200 "', "a\nb", "$host", "a\\", "b\u00fccher"])
def test_a_policy_stays_inside_its_quotes(policy: str) -> None:
    """Whatever ends the string would become configuration."""
    (problem,) = web.bad_policy({"stack_content_security_policy": policy})
    assert problem.startswith("stack_content_security_policy is ")


@pytest.mark.parametrize(("size", "memory", "refused"), [(2**25, "128m", 0), (2**25 + 1, "128m", 1), ("9", "?", 0)])
def test_a_body_has_to_fit(size: int | str, memory: str, refused: int) -> None:
    """A body that is allowed and has no room would be an error of the server; another check names a bad memory."""
    services = [{"name": "app"}, {"name": "api", "body_bytes": size}]
    given = {"stack_body_bytes": size, "stack_nginx_memory": memory, "stack_services": services}
    problems = list(web.body_without_room(given))
    named = ["stack_body_bytes", "stack_services[1] (api): body_bytes"] * refused
    assert [problem.partition(" is ")[0] for problem in problems] == named
    assert all(" is 33554433, but nginx has room for 33554432" in one for one in problems)


@pytest.mark.parametrize("address", ["::1", "localhost", "127.0.0.1:80", "", None])
def test_address_has_to_be_one_of_ipv4(address: object) -> None:
    """Compose would misread another one, or nginx could not be replaced without a gap."""
    said = f"stack_address is {address!r}: allowed is an IPv4 address of the machine, or 0.0.0.0 for all of them"
    assert list(web.bad_address({"stack_address": address})) == [said]
    assert list(web.bad_address({"stack_address": "127.0.0.1"})) == []
