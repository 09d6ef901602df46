"""Malformed requests, slow clients, and clients that ask too much, as nginx answers them."""

from __future__ import annotations

import json
import random
import re
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count

import pytest
from testinfra.host import Host

from bench.playbook import playbook
from bench.stack import Stack
from tests.slow_clients import CROWD, CUT_WITHIN_S, slow_crowd

# Two deploys, and ten seconds of slow clients.
pytestmark = pytest.mark.long

HEADERS = (
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Permissions-Policy",
    "Content-Security-Policy",
)
NAME = "www.example.test"
FEW = 50
"""Requests per second, and at a time, that one address may send where the tests set the limits."""
BODY_LIMIT = 1048576
MANY = 3000
MOST_P99_S = 0.1
QUIET_S = 0.4
"""A server that sends nothing for so long waits for more."""
OWN_REFUSALS = {501, 505}
"""By RFC 9112 the answers to a transfer coding and to a version that nginx does not know; all others are below 500."""
FUZZ_CASES = 600
SEED = 20261121


@dataclass(frozen=True)
class Response:
    """A response as it came over the wire."""

    status: int
    head: str
    body: bytes


def talk(address: str, data: bytes, quiet: float = QUIET_S) -> bytes:
    """Send bytes and collect the answer, until the server closes or is silent for ``quiet`` seconds."""
    with socket.create_connection((address, 80), timeout=5) as connection:
        connection.settimeout(quiet)
        said = b""
        try:
            connection.sendall(data)
            while received := connection.recv(65536):
                said += received
        except OSError:
            pass
        return said


def responses(said: bytes) -> list[Response]:
    """Split what a server sent into responses.

    Raises:
        AssertionError: It is not a sequence of whole responses.
    """
    found = []
    while said:
        head, end, said = said.partition(b"\r\n\r\n")
        match = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
        assert match, head[:200]
        assert end, head[:200]
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        if re.search(rb"(?im)^transfer-encoding: *chunked", head):
            body, said = _chunks(said)
        elif length:
            body, said = said[: int(length[1])], said[int(length[1]) :]
        else:
            body, said = said, b""
        found.append(Response(int(match[1]), head.decode("latin-1"), body))
    return found


def _chunks(said: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, said = said.partition(b"\r\n")
        number = int(size, 16)
        body, said = body + said[:number], said[number + 2 :]
        if not number:
            return body, said


def header(response: Response, name: str) -> list[str]:
    """Return all values of a header."""
    return re.findall(rf"(?im)^{re.escape(name)}: *(.*?)\r?$", response.head)


CANARY = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CANARY_SAYS = b'{"status":"ok"}'
SMUGGLED = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
SMUGGLED_SAYS = b'"ready"'
"""What would be answered if bytes of a body were taken for a request."""


def _post(*headers: str, body: bytes = b"", line: str = "POST /whoami HTTP/1.1") -> bytes:
    return "\r\n".join([line, "Host: a", *headers, "", ""]).encode("latin-1") + body


SHORT = b"0\r\n\r\n" + SMUGGLED
CORPUS = {
    "length and chunks, the body read as chunks": _post(
        f"Content-Length: {len(SHORT)}", "Transfer-Encoding: chunked", body=SHORT
    ),
    "chunks and length": _post(
        "Transfer-Encoding: chunked", "Content-Length: 4", body=b"5c\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"
    ),
    "two lengths": _post("Content-Length: 0", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
    "two equal lengths": _post("Content-Length: 1", "Content-Length: 1", body=b"x"),
    "two lengths in one header": _post(f"Content-Length: 0, {len(SMUGGLED)}", body=SMUGGLED),
    "negative length": _post("Content-Length: -1", body=SMUGGLED),
    "length with a plus": _post("Content-Length: +0", body=SMUGGLED),
    "hexadecimal length": _post("Content-Length: 0x0", body=SMUGGLED),
    "length beyond 64 bits": _post("Content-Length: 18446744073709551616", body=SMUGGLED),
    "length with letters": _post("Content-Length: 0abc", body=SMUGGLED),
    "space before the colon": _post("Content-Length : 0", body=SMUGGLED),
    "unknown coding": _post("Transfer-Encoding: xchunked", body=SHORT),
    "two codings": _post("Transfer-Encoding: chunked, identity", body=SHORT),
    "coding twice": _post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=SHORT),
    "coding after a vertical tab": _post("Transfer-Encoding: \x0bchunked", body=SHORT),
    "coding with a space before the colon": _post("Transfer-Encoding : chunked", body=SHORT),
    "coding with an underscore": _post("Transfer_Encoding: chunked", "Content-Length: 0", body=SHORT),
    "coding in HTTP/1.0": _post("Transfer-Encoding: chunked", body=SHORT, line="POST /whoami HTTP/1.0"),
    "coding folded": _post("Transfer-Encoding:\r\n chunked", body=SHORT),
    "header folded": _post("X-Folded: a\r\n b", "Content-Length: 0"),
    "chunk of no size": _post("Transfer-Encoding: chunked", body=b"\r\nx\r\n0\r\n\r\n"),
    "chunk of a negative size": _post("Transfer-Encoding: chunked", body=b"-1\r\nx\r\n0\r\n\r\n"),
    "chunk with 0x": _post("Transfer-Encoding: chunked", body=b"0x1\r\nx\r\n0\r\n\r\n"),
    "chunk beyond 64 bits": _post("Transfer-Encoding: chunked", body=b"10000000000000000\r\nx\r\n0\r\n\r\n"),
    "chunk longer than it says": _post("Transfer-Encoding: chunked", body=b"1\r\nxyz\r\n0\r\n\r\n"),
    "chunk with bare LF": _post("Transfer-Encoding: chunked", body=b"1\nx\n0\n\n"),
    "chunk with an extension": _post("Transfer-Encoding: chunked", body=b"1;a=" + b"b" * 5000 + b"\r\nx\r\n0\r\n\r\n"),
    "chunks with a trailer": _post("Transfer-Encoding: chunked", body=b"0\r\nContent-Length: 9\r\nHost: b\r\n\r\n"),
    "lines that end in bare LF": b"GET /whoami HTTP/1.1\nHost: a\n\n",
    "bare CR in a header": b"GET /whoami HTTP/1.1\r\nHost: a\r\nX: b\rContent-Length: 9\r\n\r\n",
    "CR before the line": b"\r\n\r\nGET /whoami HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the path": b"GET /who\0ami HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a header": b"GET /whoami HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "NUL in the path, encoded": b"GET /who%00ami HTTP/1.1\r\nHost: a\r\n\r\n",
    "out of the root": b"GET /..%2f..%2f..%2fetc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "out of the root, plainly": b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "bad escape": b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "line break in the path, encoded": b"GET /%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes that are no UTF-8": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute URI, other host": b"GET http://b/whoami HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute URI, other scheme": b"GET ftp://a/whoami HTTP/1.1\r\nHost: a\r\n\r\n",
    "authority form": b"CONNECT b:443 HTTP/1.1\r\nHost: b\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path": b"GET whoami HTTP/1.1\r\nHost: a\r\n\r\n",
    "two hosts": b"GET /whoami HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET /whoami HTTP/1.1\r\n\r\n",
    "host of strange characters": b"GET /whoami HTTP/1.1\r\nHost: a/../b?c\r\n\r\n",
    "host with a name and a password": b"GET /whoami HTTP/1.1\r\nHost: a:b@c\r\n\r\n",
    "HTTP/0.9": b"GET /whoami\r\n",
    "HTTP/1.2": b"GET /whoami HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/3.0": b"GET /whoami HTTP/3.0\r\nHost: a\r\n\r\n",
    "no version": b"GET /whoami HTTP\r\nHost: a\r\n\r\n",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "upgrade to HTTP/2": _post(
        "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Connection: Upgrade, HTTP2-Settings"
    ),
    "upgrade to a web socket": _post("Upgrade: websocket", "Connection: Upgrade"),
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(500),
    "method of its own": b"FUZZ /whoami HTTP/1.1\r\nHost: a\r\n\r\n",
    "method in small letters": b"get /whoami HTTP/1.1\r\nHost: a\r\n\r\n",
    "TRACE": b"TRACE /whoami HTTP/1.1\r\nHost: a\r\n\r\n",
    "long path": b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "long header": b"GET /whoami HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70000 + b"\r\n\r\n",
    "path that only nginx takes": b"GET /" + b"a" * 6000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "many headers": b"GET /whoami HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    "more headers than gunicorn takes": b"GET /whoami HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "header without a name": b"GET /whoami HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "header without a colon": b"GET /whoami HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "space before the first header": b"GET /whoami HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
    "headers that gunicorn believes": _post("Content-Length: 0", "SCRIPT_NAME: /x", "X-Forwarded-Ssl: on"),
    "schemes that contradict": _post("Content-Length: 0", "X-Forwarded-Proto: https", "X-Forwarded-Protocol: ssl"),
    "expects a continuation": _post("Expect: 100-continue", "Content-Length: 1", body=b"x"),
    "expects what there is not": _post("Expect: everything", "Content-Length: 0"),
    "range of ranges": b"GET /static/css/site.css HTTP/1.1\r\nHost: a\r\nRange: bytes="
    + b"0-1," * 500
    + b"2-3\r\n\r\n",
    "body of a GET": b"GET /whoami HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "empty": b"\r\n",
    "nothing that is HTTP": b"\x00\x01\x02\x03" * 100,
}


def assert_in_step(name: str, said: bytes) -> None:
    """Assert that no bytes of a body were taken for a request, and that the last request got its own answer."""
    if name == "HTTP/0.9" and not said.startswith(b"HTTP/"):
        return
    # 100 and 101 have no end of their own.
    found = [one for one in responses(said) if one.status >= 200]
    wrong = [one.status for one in found if one.status >= 500 and one.status not in OWN_REFUSALS]
    assert wrong == [], name
    assert not any(SMUGGLED_SAYS in one.body for one in found), name
    assert len(found) <= 2, name
    # What is left of a body that was not read is no request either.
    assert [one.body for one in found[1:] if one.status != 400 and one.body.strip() != CANARY_SAYS] == [], name


@pytest.fixture
def unharmed(host: Host, stack: Stack) -> Iterator[None]:
    """Assert that a test ends no process of nginx or of a server."""

    def processes() -> list[str]:
        ids = [one["Id"] for service in ("nginx", "app") for one in stack.inspect(service)]
        top = "; ".join(f"docker top {one} -eo pid,args" for one in ids)
        listed = host.check_output(top).splitlines()
        return sorted(line for line in listed if re.search("nginx:|gunicorn", line))

    before = processes()
    yield
    assert processes() == before
    assert set(stack.ask(30)) == {one.id for one in stack.containers("app")}


@pytest.mark.usefixtures("unharmed")
def test_malformed_requests_get_no_foot_in_the_door(stack: Stack) -> None:
    """Nginx and the app must agree where a request ends, so nginx refuses what the two could read differently."""
    with ThreadPoolExecutor(16) as pool:
        said = pool.map(lambda data: talk(stack.address, data + CANARY), CORPUS.values())
    for name, answer in zip(CORPUS, said, strict=True):
        assert_in_step(name, answer)


def _mutants(seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)  # noqa: S311 (must be the same every time)
    parts = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"0",
        b"-1",
        b"chunked",
        b"Transfer-Encoding: chunked\r\n",
    ]
    parts += [
        b"Content-Length: 5\r\n",
        b"Host: b\r\n",
        b"HTTP/1.1",
        b"\xff",
        b"%00",
        b"a" * 9000,
        b"0\r\n\r\n",
        b"Connection: close\r\n",
    ]
    seeds = [
        *CORPUS.values(),
        _post("Content-Length: 5", body=b"hello"),
        _post("Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    ]
    while True:
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(4):
                case 0:
                    data[at:at] = chance.choice(parts)
                case 1:
                    del data[at : at + chance.randint(1, 8)]
                case 2:
                    data[at : at + 1] = bytes([chance.randrange(256)])
                case _:
                    data[at:at] = data[at : at + chance.randint(1, 60)]
        yield bytes(data)


@pytest.mark.usefixtures("unharmed")
def test_fuzzed_requests_break_nothing(stack: Stack) -> None:
    """The random requests are the same each time, and the number in a failure repeats one of them."""
    cases = [data for data, _ in zip(_mutants(SEED), range(FUZZ_CASES), strict=False)]
    with ThreadPoolExecutor(32) as pool:
        said = pool.map(lambda data: talk(stack.address, data), cases)
    for number, answer in enumerate(said):
        if answer.startswith(b"HTTP/"):
            statuses = [int(one) for one in re.findall(rb"(?m)^HTTP/1\.1 (\d{3}) ", answer)]
            wrong = [one for one in statuses if one >= 500 and one not in OWN_REFUSALS]
            assert wrong == [], (number, cases[number])


def _get(stack: Stack, path: str = "/", *headers: str) -> Response:
    request = "\r\n".join([f"GET {path} HTTP/1.1", "Connection: close", *headers, "", ""])
    (response,) = responses(talk(stack.address, request.encode(), quiet=5))
    return response


def test_answers_tell_browsers_what_is_allowed(stack: Stack) -> None:
    """The app's and nginx's own answers have each header once; of two, browsers choose differently."""
    own = responses(talk(stack.address, _post("Content-Length: 99999999"), quiet=2))[0]
    assert own.status == 413
    for response in (_get(stack, "/", "Host: a"), _get(stack, "/no-such-page", "Host: a"), own):
        assert {name: len(header(response, name)) for name in HEADERS} == dict.fromkeys(HEADERS, 1)
        assert header(response, "Server") == ["nginx"]
        assert header(response, "X-Powered-By") == []


def test_a_large_body_is_refused_at_once(stack: Stack) -> None:
    """It is refused before it is sent, and the answer says how large it may be."""
    largest = _post(f"Content-Length: {BODY_LIMIT}", body=bytes(BODY_LIMIT))
    (taken,) = responses(talk(stack.address, largest, quiet=5))
    assert taken.status == 200
    (refused,) = responses(talk(stack.address, _post(f"Content-Length: {BODY_LIMIT + 1}"), quiet=5))
    assert (refused.status, refused.body) == (413, b"The body of a request may have at most 1048576 bytes.\n")


@pytest.mark.usefixtures("unharmed")
def test_slow_clients_are_cut_and_not_felt(stack: Stack) -> None:
    """Each slow client holds a connection of nginx for ten seconds, and never a replica."""
    with ThreadPoolExecutor(1) as pool, stack.under_load() as load:
        lasted = pool.submit(slow_crowd, stack.address, "a").result()
    report = load.report()
    print(f"cut after {min(lasted):.1f} to {max(lasted):.1f} s; p99 of the others {report.latency.p99 * 1000:.0f} ms")
    assert len(lasted) == CROWD
    assert max(lasted) <= CUT_WITHIN_S
    assert report.failures() == {}
    assert report.latency.p99 <= MOST_P99_S


@pytest.mark.usefixtures("unharmed")
def test_headers_that_do_not_end_fill_no_memory(stack: Stack) -> None:
    """All header buffers of all connections are used; a worker that the kernel killed would cut all its clients."""
    began = b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 7600 + b"\r\n") * 3 + b"X: " + b"a" * 4000
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as opened:
        for _ in range(MANY):
            connection = opened.enter_context(socket.create_connection((stack.address, 80), timeout=5))
            with suppress(ConnectionError):
                connection.sendall(began)
        time.sleep(1)
    stack.wait_for("it answers as before", lambda: len(stack.ask(30)) == stack.replicas)


@pytest.fixture(scope="module")
def strict(stack: Stack) -> Iterator[Stack]:
    """Give the stack a name, narrow limits and a policy of its own, and remove them after the tests."""
    given = {
        "stack_host_names": [NAME],
        "stack_requests_per_address": FEW,
        "stack_connections_per_address": FEW,
        "stack_content_security_policy": "default-src 'none'",
    }
    deployed = playbook("playbooks/deploy.yml", "--extra-vars", json.dumps(given))
    assert deployed.ok, deployed.said
    yield stack
    deployed = playbook("playbooks/deploy.yml")
    assert deployed.ok, deployed.said


@pytest.mark.parametrize(
    ("host_header", "status"),
    [
        (f"Host: {NAME}", 200),
        (f"Host: {NAME.upper()}:8080", 200),
        ("Host: evil.test", 421),
        (f"Host: {NAME}.evil.test", 421),
    ],
)
def test_only_our_names_are_answered(strict: Stack, host_header: str, status: int) -> None:
    """Another domain must not show our pages, and an app must not make links from a name that a client chose."""
    assert _get(strict, "/whoami", host_header).status == status
    assert _get(strict, "/healthz", host_header).status == 200


def test_an_absolute_uri_is_a_name_too(strict: Stack) -> None:
    """The host in an absolute URI wins over the Host header."""
    assert _get(strict, "http://evil.test/whoami", f"Host: {NAME}").status == 421
    assert _get(strict, f"http://{NAME}/whoami", f"Host: {NAME}").status == 200
    assert _get(strict, "/whoami", f"Host: {strict.address}").status == 421
    assert _get(strict, "/whoami", "Host:").status == 400


def test_the_policy_is_ours_to_choose(strict: Stack) -> None:
    """An app that needs another content security policy sets it in the variables or sends the header itself."""
    assert header(_get(strict, "/", f"Host: {NAME}"), "Content-Security-Policy") == ["default-src 'none'"]


def test_a_flood_is_answered_with_429(strict: Stack) -> None:
    """An address that asks too much gets 429 at once, whatever address it claims; a second later it may ask again."""
    numbers = count()

    def asked(_: int) -> list[Response]:
        lines = f"GET /whoami HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-For: 192.0.2.{{}}\r\n\r\n"
        many = "".join(lines.format(next(numbers) % 256) for _ in range(FEW))
        return responses(talk(strict.address, many.encode(), quiet=2))

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for some in pool.map(asked, range(8)) for answer in some]
    statuses = Counter(one.status for one in answers)
    refused = next(one for one in answers if one.status == 429)
    print(statuses)
    assert set(statuses) == {200, 429}
    # What was asked just before counts as well.
    assert statuses[429] > statuses[200] >= FEW / 2
    assert header(refused, "Retry-After") == ["1"]
    assert refused.body.startswith(b"Too many requests")
    time.sleep(1.5)
    assert _get(strict, "/whoami", f"Host: {NAME}").status == 200


def test_who_has_too_much_under_way_is_answered_with_429(strict: Stack) -> None:
    """Bodies that never end can hold only so many connections of one address."""
    waiting: list[socket.socket] = []
    time.sleep(1.5)
    try:
        for _ in range(FEW):
            connection = socket.create_connection((strict.address, 80), timeout=5)
            waiting.append(connection)
            connection.sendall(f"POST /whoami HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 9\r\n\r\n".encode())
            # Below the other limit.
            time.sleep(1 / FEW)
        assert _get(strict, "/whoami", f"Host: {NAME}").status == 429
    finally:
        for connection in waiting:
            connection.close()
    time.sleep(0.5)
    assert _get(strict, "/whoami", f"Host: {NAME}").status == 200
