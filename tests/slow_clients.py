"""Clients that begin a request and do not end it: each holds a connection of nginx."""

from __future__ import annotations

import asyncio
import ssl
import time

CLIENT_S = 10
"""What ``stack_client_seconds`` is as shipped."""
CUT_WITHIN_S = CLIENT_S + 3
OF_EACH_KIND = 400
CROWD = 2 * OF_EACH_KIND


async def _slow(address: str, host: str, trust: ssl.SSLContext | None, began: bytes, drop: bytes) -> float:
    """Send the beginning of a request, then a byte now and then; return the seconds until the server closes."""
    port, name = (443, host) if trust else (80, None)
    reader, writer = await asyncio.open_connection(address, port, ssl=trust, server_hostname=name)
    since = time.monotonic()
    try:
        writer.write(began)
        ended = asyncio.ensure_future(reader.read())
        while not ended.done() and time.monotonic() - since < 2 * CUT_WITHIN_S:
            if drop:
                writer.write(drop)
            await asyncio.wait([ended], timeout=1)
        ended.cancel()
    except OSError:
        pass
    finally:
        writer.close()
    return time.monotonic() - since


def slow_crowd(address: str, host: str, trust: ssl.SSLContext | None = None) -> list[float]:
    """Keep as many connections as possible busy with nothing: headers that do not end, and bodies that do not come.

    ``host`` is the name to ask for; without ``trust`` the clients speak plain HTTP.

    Returns:
        For each client the seconds from being connected until it was cut.

    Raises:
        OSError: A client could not connect at all.
    """
    headers = f"GET / HTTP/1.1\r\nHost: {host}\r\n".encode()
    body = f"POST /whoami HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\nx".encode()

    async def all_at_once() -> list[float]:
        slow_headers = [_slow(address, host, trust, headers, b"X") for _ in range(OF_EACH_KIND)]
        slow_bodies = [_slow(address, host, trust, body, b"") for _ in range(OF_EACH_KIND)]
        return await asyncio.gather(*slow_headers, *slow_bodies)

    return asyncio.run(all_at_once())
