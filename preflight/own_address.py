"""Asks which address AWS sees this machine at, and puts it where ec2_ssh_cidrs says ``me``."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from botocore.utils import get_environ_proxies

ME = "me"
"""An entry of ec2_ssh_cidrs: the address of whoever runs this."""

AWS_SERVICE = "https://checkip.amazonaws.com"
"""Answers with the caller's address: https://docs.aws.amazon.com/vpc/latest/userguide/working-with-security-group-rules.html"""

TIMEOUT_S = 10
SHOWN = 60
EXAMPLE = "203.0.113.7/32"


class UnknownAddressError(Exception):
    """Nobody says which address this machine has on the internet."""


def service() -> str:
    """Give the URL that is asked: AWS's, or the rehearsal's own."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return f"{endpoint.rstrip('/')}/checkip" if endpoint else AWS_SERVICE


def own_address() -> str:
    """Ask which IPv4 address AWS sees this machine at, by the proxies and certificates of every AWS client.

    Raises:
        UnknownAddressError: There is no answer, or none that is an address.
    """
    url = service()
    unknown = f"{url} does not say which address this machine has"
    try:
        http = URLLib3Session(
            verify=Session().get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(url),
            timeout=TIMEOUT_S,
        )
        answer = http.send(AWSRequest("GET", url).prepare())
    except BotoCoreError as error:
        raise UnknownAddressError(f"{unknown}: {error}") from error
    said = answer.text.strip()
    try:
        return str(ipaddress.IPv4Address(said))
    except ValueError as error:
        raise UnknownAddressError(f"{unknown}: HTTP {answer.status_code}, {said[:SHOWN]!r}") from error


def ssh_blocks(cidrs: Iterable[object]) -> list[str]:
    """Put this machine's address in the place of ``me`` in the entries of ec2_ssh_cidrs.

    Raises:
        UnknownAddressError: The address is needed and not known.
    """
    listed = [str(cidr) for cidr in cidrs]
    if ME not in listed:
        return listed
    try:
        mine = f"{own_address()}/32"
    except UnknownAddressError as error:
        raise UnknownAddressError(
            f"ec2_ssh_cidrs has {ME!r}, but {error}. Allowed is your own address in its place, such as {EXAMPLE}"
        ) from error
    return list(dict.fromkeys(mine if cidr == ME else cidr for cidr in listed))
