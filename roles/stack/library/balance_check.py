"""Ansible module: asks a URL repeatedly, over one kept connection, and counts which replica answered.

Replicas name themselves in the header ``X-Replica``.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections import Counter
from contextlib import closing
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

UNNAMED = "unnamed"
"""An answer of an image without the wrapper that names its container."""
REQUESTS = 30
TIMEOUT_S = 20
"""How long the first answer may take to come, and any other answer."""


class Direct(http.client.HTTPSConnection):
    """A connection over TLS to a given address, with the name that the certificate is for."""

    def __init__(self, name: str, port: int, address: str, timeout: float, context: ssl.SSLContext) -> None:
        """Say where to connect to, for which name the certificate has to be, and which certificates are accepted."""
        super().__init__(name, port, timeout=timeout, context=context)
        self._address = address
        self._trust = context

    def connect(self) -> None:
        """Connect to the address, whatever the name leads to."""
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=self.host)


def only(certificate: str) -> ssl.SSLContext:
    """Make a context for clients that accepts the first certificate of a text in PEM alone, whoever signed it."""
    end = "-----END CERTIFICATE-----"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate.partition(end)[0] + end)
    return context


def ask(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> str:
    """Ask once for the id of the container that answers; it is ``UNNAMED`` when the answer gives none."""
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    if response.status != http.client.OK:
        raise ValueError(f"status {response.status}")
    return response.getheader("X-Replica") or UNNAMED


def wait_for_first(connection: http.client.HTTPConnection, path: str, headers: dict[str, str], timeout: float) -> str:
    """Ask until somebody answers, because a service that was just started may need a moment."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask(connection, path, headers)
        except (OSError, ValueError, http.client.HTTPException):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            # Where to connect to, where the URL's name does not lead there yet.
            "address": {"type": "str", "default": ""},
            # The one to accept, in PEM.
            "certificate": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    url = urlsplit(module.params["url"])
    name = url.hostname or ""
    address = module.params["address"] or name
    connection: http.client.HTTPConnection
    try:
        if url.scheme == "https":
            connection = Direct(name, url.port or 443, address, TIMEOUT_S, only(module.params["certificate"]))
        else:
            connection = http.client.HTTPConnection(address, url.port or 80, timeout=TIMEOUT_S)
        headers = {"Host": url.netloc}
        with closing(connection):
            answers = [wait_for_first(connection, url.path, headers, TIMEOUT_S)]
            answers += [ask(connection, url.path, headers) for _ in range(REQUESTS - 1)]
    except (OSError, ValueError, http.client.HTTPException) as error:
        module.fail_json(msg=f"{module.params['url']} did not answer as a replica: {error}")
        return
    module.exit_json(changed=False, spread=dict(Counter(answers).most_common()))


if __name__ == "__main__":
    main()
