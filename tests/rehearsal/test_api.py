"""The rehearsal's own page, in front of moto."""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rehearsal import CHECKIP, HOME, api
from rehearsal.errors import RehearsalError
from rehearsal.fleet import Fleet
from rehearsal.state import Settings


def moto(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"moto"]


def ask(settings: Settings, fleet: Fleet, path: str, method: str = "GET", body: bytes = b"") -> tuple[str, bytes]:
    status: list[str] = []
    length, stream = str(len(body)), io.BytesIO(body)
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "CONTENT_LENGTH": length, "wsgi.input": stream}
    answer = api.with_home(moto, settings, fleet)(environ, lambda line, _: status.append(line))
    return status[0], b"".join(answer)


def test_process_proves_whose_it_is(settings: Settings) -> None:
    """The command line trusts the token, not the port."""
    status, body = ask(settings, Fleet(settings), HOME)
    said = json.loads(body)
    assert (status, said["token"], said["name"], said["instances"]) == ("200 OK", settings.token, "trial", [])


@pytest.mark.parametrize(("path", "status"), [("/", "200 OK"), ("/moto-api/reset", "403 Forbidden")])
def test_only_what_would_orphan_containers_is_kept_from_moto(settings: Settings, path: str, status: str) -> None:
    """A reset of moto alone would forget instances without terminating them."""
    assert ask(settings, Fleet(settings), path)[0] == status


def test_controller_is_told_its_address_as_instances_see_it(settings: Settings) -> None:
    synced: list[bool] = []
    fleet = Fleet(settings, synced.append)
    assert ask(settings, fleet, CHECKIP) == ("200 OK", b"10.99.0.1\n")
    ask(settings, fleet, HOME, "PUT", b'{"controller": "203.0.113.7", "image": "flask-fleet/instance:new"}')
    assert ask(settings, fleet, CHECKIP) == ("200 OK", b"203.0.113.7\n")
    assert fleet.settings.image == "flask-fleet/instance:new"
    assert synced == [False]


def test_change_that_cannot_be_enforced_is_said(settings: Settings) -> None:
    def fail(_anew: bool) -> None:
        raise RehearsalError("no iptables here")

    told = ask(settings, Fleet(settings, fail), HOME, "PUT", b'{"controller": "203.0.113.7"}')[1]
    assert json.loads(told)["error"] == "no iptables here"
