"""Headers as large as the documentation says pass in all three servers, and larger ones are refused by nginx."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from bench.stack import Stack
from tests.live_services import PROBES, find

COOKIES, SIZE = 8, 3980
"""Eight cookies nearly as large as a browser keeps them, 31 KiB in all."""

each_probe = pytest.mark.parametrize("name", PROBES)


@each_probe
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_cookies_come_and_go_back(stack: Stack, name: str, method: str) -> None:
    """HTTP/1.1 sends them all in one line; a POST has done its work before its answer could be refused."""
    door = find(stack, name)
    answer = door.send(method, f"/headers/{COOKIES}/{SIZE}", b"" if method == "POST" else None)
    assert (answer.status, answer.text) == (200, "ab")
    cookies = "; ".join(f"c{number}={'x' * SIZE}" for number in range(COOKIES))
    assert door.get("/whoami", Cookie=cookies).status == 200


@each_probe
def test_what_is_too_large_is_refused_alike(stack: Stack, name: str) -> None:
    """Just below a limit it passes whichever server there is, and above it nginx itself refuses."""
    door = find(stack, name)
    path = "/whoami?" + "q" * (8192 - len(f"{door.prefix}/whoami?"))
    assert [door.get(path).status, door.get(f"{path}q").status] == [200, 414]
    # Two are the client's own.
    lines = {f"X_{number}": "x" for number in range(88)}
    assert [door.get("/whoami", **lines).status, door.get("/whoami", **lines, Y="y").status] == [200, 400]
    assert door.get("/whoami", Cookie="c=" + "x" * 33000).status == 400


@each_probe
def test_log_says_why_an_answer_did_not_pass(host: Host, stack: Stack, name: str) -> None:
    """The app did not fail, and its own log says nothing."""
    door = find(stack, name)
    answer = door.get("/headers/12/3980")
    assert answer.status == 502
    logged = stack.logged(answer.headers["X-Request-ID"])
    nginx = stack.containers("nginx")[0].id
    why = f"docker logs {nginx} 2>&1 > /dev/null | grep -F 'upstream sent too big header' | tail -1"
    assert logged["uri"] in host.check_output(why)
