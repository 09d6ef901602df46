"""Load may go to one's own machines only, unless a person insists."""

import socket
from typing import Any

import pytest

from bench.load import Load, LoadError
from bench.load.target import find_target


def resolving_to(*addresses: str) -> Any:
    """Replace the resolver."""
    return lambda _host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "10.71.0.4", "172.17.0.2", "172.31.255.1", "192.168.1.1", "[::1]", "[fd00::1]"]
)
def test_loopback_and_private_addresses_are_allowed(host: str) -> None:
    """Those are this machine, its containers and one's own network."""
    target = find_target(f"http://{host}:7151/", anywhere=False)
    assert target.host == f"{host}:7151"
    assert target.addresses == ((host.strip("[]"), 7151),)


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "172.32.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "0.0.0.0",  # noqa: S104 (nothing is bound)
        "[2001:db8::1]",
        "[::ffff:8.8.8.8]",
    ],
)
def test_other_addresses_are_refused(host: str) -> None:
    """This includes addresses that Python calls private although they are somebody else's."""
    with pytest.raises(LoadError, match=r"attack; if the server is yours, add --anywhere"):
        find_target(f"http://{host}", anywhere=False)
    assert find_target(f"http://{host}", anywhere=True).addresses == ((host.strip("[]"), 80),)


def test_name_with_one_public_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell beforehand which of its addresses will be used."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.1", "8.8.8.8"))
    with pytest.raises(LoadError, match=r"8\.8\.8\.8 is not"):
        find_target("http://mixed.test", anywhere=False)


def test_addresses_that_were_checked_are_the_ones_that_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name could lead elsewhere when it is asked again."""
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.1", "127.0.0.1", "10.0.0.1"))
    target = find_target("http://mine.test:81", anywhere=False)
    assert target.host == "mine.test:81"
    assert target.addresses == (("127.0.0.1", 81), ("10.0.0.1", 81))


def test_load_for_tests_refuses_too() -> None:
    """It refuses before it starts a process."""
    with pytest.raises(LoadError, match="attack"):
        Load("http://8.8.8.8")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("127.0.0.1:80", "not of the form"),
        ("ftp://127.0.0.1", "not of the form"),
        ("http://", "not of the form"),
        ("http://user@127.0.0.1", "not of the form"),
        ("http://127.0.0.1:99999", "[Pp]ort"),
        ("http://127.0.0.1/page", "--path"),
        ("http://127.0.0.1?page", "--path"),
        ("http://[127", "Invalid IPv6"),
    ],
)
def test_wrong_url_is_explained(url: str, complaint: str) -> None:
    """A load must not go to somewhere unexpected."""
    with pytest.raises(LoadError, match=complaint):
        find_target(url, anywhere=False)


def test_unknown_name_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt name is no failure of a server."""

    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(LoadError, match=r"nowhere\.test cannot be resolved"):
        find_target("http://nowhere.test", anywhere=False)
