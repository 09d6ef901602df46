"""The rehearsal's own page, in front of moto."""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rehearsal import CHECKIP, HOME, api, network
from rehearsal.fleet import Fleet
from rehearsal.state import Settings


def moto(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stand in for moto."""
    start_response("200 OK", [])
    return [b"moto"]


def ask(settings: Settings, fleet: Fleet, path: str, method: str = "GET", body: bytes = b"") -> tuple[str, bytes]:
    """Send one request and give status and body."""
    status: list[str] = []
    environ = {
        "PATH_INFO": path,
        "REQUEST_METHOD": method,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    answer = api.with_home(moto, settings, fleet)(environ, lambda line, _: status.append(line))
    return status[0], b"".join(answer)


def test_process_proves_whose_it_is(settings: Settings) -> None:
    """The command line trusts the token, not the port."""
    status, body = ask(settings, Fleet(settings), HOME)
    said = json.loads(body)
    assert (status, said["token"], said["name"], said["instances"]) == ("200 OK", settings.token, "trial", [])


def test_image_of_new_instances_can_change(settings: Settings) -> None:
    """`up --image` on a running rehearsal."""
    fleet = Fleet(settings)
    ask(settings, fleet, HOME, "PUT", b'{"image": "flask-fleet/instance:new"}')
    assert fleet.image == "flask-fleet/instance:new"


def test_controller_is_told_the_address_that_instances_see(settings: Settings) -> None:
    """In the place of https://checkip.amazonaws.com: an address with a line end."""
    seen = f"{network.parse_network(settings.network)[1]}\n"
    assert ask(settings, Fleet(settings), CHECKIP) == ("200 OK", seen.encode())


@pytest.mark.parametrize(("path", "status"), [("/", "200 OK"), ("/moto-api/reset", "403 Forbidden")])
def test_only_what_would_orphan_containers_is_kept_from_moto(settings: Settings, path: str, status: str) -> None:
    """A reset of moto alone would forget instances without terminating them."""
    assert ask(settings, Fleet(settings), path)[0] == status
