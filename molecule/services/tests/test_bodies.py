"""Large bodies, long answers and slow clients, in all three servers."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests

from bench.stack import Stack, assert_nothing_lost
from tests.live_services import PROBES, SERVICES, find

UPLOAD = bytes(range(256)) * (20 * 2**12)
"""20 MiB."""
DIGEST = hashlib.sha256(UPLOAD).hexdigest()

STREAM_S = 30
LATE_S = 5
"""How late a line of a stream may come, on a machine that does other things as well."""

SLOW_CLIENTS = 12
"""More than the threads of both replicas."""
SLOW_BYTES_PER_S = 1024
SLOW_ANSWER_BYTES = 2 * 2**20
SLOW_S = 20
SLOW_RATE = 40


@pytest.mark.parametrize("name", PROBES)
def test_upload_of_20_mib_arrives_whole(stack: Stack, name: str) -> None:
    """A body that is larger than its service allows is refused with that limit."""
    door = find(stack, name)
    said = json.loads(door.send("POST", "/body", UPLOAD).text)
    assert said == {"sha256": DIGEST}
    limit = SERVICES[name]["body_bytes"]
    refused = requests.post(
        f"http://{stack.address}{door.prefix}/body",
        data=b"x" * (limit + 1),
        headers={"Host": door.name, "Expect": "100-continue"},
        timeout=LATE_S,
    )
    assert refused.status_code == 413
    assert str(limit) in refused.text


def test_file_of_a_form_arrives_whole(stack: Stack) -> None:
    """It is sent as browsers send it; Flask keeps it in /tmp meanwhile."""
    door = find(stack, "api")
    answer = requests.post(
        f"http://{stack.address}{door.prefix}/form",
        files={"file": ("film.bin", UPLOAD)},
        headers={"Host": door.name},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"sha256": DIGEST}


def _lines(stack: Stack, name: str) -> list[tuple[float, str]]:
    """Read a stream, and return each line with the seconds since the request."""
    door, query = find(stack, name), "" if SERVICES[name].get("streaming") else "?unbuffered"
    with door.connect() as connection:
        since = time.monotonic()
        connection.request("GET", f"{door.prefix}/stream/{STREAM_S}{query}", headers={"Host": door.name})
        response = connection.getresponse()
        assert response.status == 200
        return [(time.monotonic() - since, line.decode().strip()) for line in iter(response.readline, b"")]


@pytest.mark.long
def test_streams_of_30_s_come_line_by_line(stack: Stack) -> None:
    """All three servers stream at once while others are answered: by `streaming`, or by the answer's own header."""
    with ThreadPoolExecutor() as pool, find(stack, "app").under_load(SLOW_RATE) as load:
        streams = {name: pool.submit(_lines, stack, name) for name in PROBES}
        read = {name: stream.result() for name, stream in streams.items()}
    for name, lines in read.items():
        assert [text for _, text in lines] == [*map(str, range(STREAM_S)), "end"], name
        late = [at - number for number, (at, _) in enumerate(lines)]
        assert -1 < min(late) <= max(late) < LATE_S, (name, lines)
    assert_nothing_lost(load)


def _read_slowly(door: Stack, stop: threading.Event) -> int:
    """Read an answer at 1 KiB/s until told to hurry, and return its bytes."""
    with closing(socket.socket()) as client:
        # Or the kernel would take most of the answer at once.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect((door.address, 80))
        asked = f"GET {door.prefix}/bytes/{SLOW_ANSWER_BYTES} HTTP/1.1"
        client.sendall(f"{asked}\r\nHost: {door.name}\r\nConnection: close\r\n\r\n".encode())
        count, body = 0, 0
        while part := client.recv(65536 if stop.is_set() else SLOW_BYTES_PER_S):
            # The head ends in the first part: it is short.
            body += len(part) - (part.index(b"\r\n\r\n") + 4 if not count else 0)
            count += len(part)
            stop.wait(1)
        return body


def _send_slowly(door: Stack, stop: threading.Event) -> bytes:
    """Send a body at 1 KiB/s until told to hurry, and return the answer."""
    body = UPLOAD[: 64 * 1024]
    head = f"POST {door.prefix}/body HTTP/1.1\r\nHost: {door.name}\r\nConnection: close\r\n"
    with closing(socket.create_connection((door.address, 80), timeout=30)) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        for position in range(0, len(body), SLOW_BYTES_PER_S):
            client.sendall(body[position : position + SLOW_BYTES_PER_S])
            stop.wait(1)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in PROBES if not SERVICES[name].get("streaming")])
def test_slow_clients_keep_nobody_waiting(stack: Stack, name: str) -> None:
    """Nginx buffers the answer, and passes on a body only when it is whole, so no thread waits for a client."""
    door, stop = find(stack, name), threading.Event()
    with ThreadPoolExecutor(2 * SLOW_CLIENTS) as pool:
        try:
            readers = [pool.submit(_read_slowly, door, stop) for _ in range(SLOW_CLIENTS)]
            writers = [pool.submit(_send_slowly, door, stop) for _ in range(SLOW_CLIENTS)]
            with door.under_load(SLOW_RATE) as load:
                time.sleep(SLOW_S)
            still = [future for future in readers + writers if not future.done()]
        finally:
            stop.set()
        read = [future.result() for future in readers]
        sent = [future.result() for future in writers]
    assert len(still) == 2 * SLOW_CLIENTS
    assert_nothing_lost(load)
    assert read == [SLOW_ANSWER_BYTES] * SLOW_CLIENTS
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in sent)
