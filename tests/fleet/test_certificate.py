"""The certificate on the machine: when it is renewed, that it is served, and what remains when something fails."""

import dataclasses
import errno
import functools
import http.server
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import certificate
from fleet.certificate import Certificates, Settings
from fleet.system import FleetError
from tests.preflight.input import free_port

NAMES = ["www.example.test", "example.test"]
ADDRESS = "192.0.2.7"
DAY = 86400


@dataclasses.dataclass
class Clock:
    """The clock by which certificates are due, which a test can set forward."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("served", "incoming", "webroot/.well-known/acme-challenge"):
        (tmp_path / "certificate" / name).mkdir(parents=True)
    return tmp_path / "certificate"


@pytest.fixture
def settings() -> Settings:
    return Settings(
        mode="self_signed",
        names=NAMES,
        address=ADDRESS,
        days=90,
        email="jane@example.test",
        acme_directory="https://acme.example.test/directory",
        authorities="",
        reader=os.getuid(),
        listens="127.0.0.1",
        port=free_port(),
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(folder: Path, settings: Settings, clock: Clock) -> Certificates:
    """Return a folder without a certificate, for an nginx that does not run."""
    return Certificates(folder, settings, nobody, clock)


def nobody() -> None:
    pytest.fail("nginx was told to reload")


def again(kept: Certificates, **changes: object) -> Certificates:
    """Return the certificates as the next run finds them, with other settings."""
    settings = dataclasses.replace(kept.settings, **changes)  # type: ignore[arg-type]
    return Certificates(kept.served.parent, settings, kept.reload, kept.clock)


def served_text(kept: Certificates) -> str:
    return (kept.live / certificate.CERTIFICATE).read_text()


def pair_of_somebody(folder: Path, kept: Certificates) -> Path:
    other = Certificates(folder.parent / "other", kept.settings, nobody)
    other.served.mkdir(parents=True)
    other.prepare()
    for file in (certificate.CERTIFICATE, certificate.KEY):
        (kept.incoming / file).write_bytes((other.live / file).read_bytes())
    return kept.incoming


def test_self_signed_certificate_is_for_all_names_and_the_address(kept: Certificates) -> None:
    kept.prepare()
    made = certificate.read(kept.live / certificate.CERTIFICATE)
    assert made.names == {*NAMES, ADDRESS}
    assert made.ends - made.begins == 90 * DAY
    assert (kept.live / certificate.KEY).stat().st_mode & 0o777 == 0o400


def test_second_run_changes_nothing(kept: Certificates) -> None:
    kept.prepare()
    before, later = served_text(kept), again(kept)
    later.prepare()
    assert served_text(later) == before
    assert later.changes == []


@pytest.mark.parametrize(("days", "renewed"), [(59, False), (61, True), (91, True)])
def test_renewed_when_a_third_is_left(kept: Certificates, clock: Clock, days: int, *, renewed: bool) -> None:
    """Earlier it would be renewed too often, and later only days would be left to notice a failure."""
    kept.prepare()
    before = served_text(kept)
    clock.ahead = days * DAY
    # Made by openssl, which has another clock: by that of the test one of 90 days may be over at once.
    later = again(kept, days=366)
    later.prepare()
    assert (served_text(later) != before) is renewed


def test_other_names_make_another_certificate(kept: Certificates) -> None:
    kept.prepare()
    later = again(kept, names=["new.example.test"])
    later.prepare()
    assert certificate.read(later.live / certificate.CERTIFICATE).names == {"new.example.test", ADDRESS}


def test_acme_begins_with_a_placeholder(kept: Certificates, clock: Clock) -> None:
    """Without any certificate nginx does not start, and without nginx the authority cannot check the name."""
    waiting = again(kept, mode="acme")
    waiting.prepare()
    assert waiting.changes[0].startswith("placeholder: ")
    before = served_text(waiting)
    clock.ahead = (certificate.PLACEHOLDER_DAYS - 2) * DAY
    later = again(waiting)
    later.prepare()
    assert served_text(later) != before


def test_acme_serves_on_what_another_mode_left(kept: Certificates) -> None:
    """A change to acme does not take away a good certificate before the new one is there."""
    kept.prepare()
    before = served_text(kept)
    again(kept, mode="acme").prepare()
    assert served_text(kept) == before


def test_pem_is_taken_as_it_is(kept: Certificates, folder: Path) -> None:
    pair_of_somebody(folder, kept)
    brought = again(kept, mode="pem")
    brought.prepare()
    assert served_text(kept) == (kept.incoming / certificate.CERTIFICATE).read_text()
    later = again(brought)
    later.prepare()
    assert later.changes == []


@pytest.mark.parametrize("said", ["cannot be used together", "has expired"])
def test_pair_that_no_client_accepts_never_becomes_the_live_one(
    kept: Certificates, folder: Path, clock: Clock, said: str
) -> None:
    kept.prepare()
    before, pairs = served_text(kept), sorted(kept.served.iterdir())
    incoming = pair_of_somebody(folder, kept)
    if said == "has expired":
        clock.ahead = 91 * DAY
    else:
        (incoming / certificate.KEY).write_bytes((kept.live / certificate.KEY).read_bytes())
    with pytest.raises(FleetError, match=said):
        again(kept, mode="pem").prepare()
    assert served_text(kept) == before
    assert sorted(kept.served.iterdir()) == pairs


def test_full_disk_leaves_the_pair_that_serves(kept: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.prepare()
    before, pairs = served_text(kept), sorted(kept.served.iterdir())
    full = OSError(errno.ENOSPC, "No space left on device")

    def no_room(_: int) -> None:
        raise full

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="No space left"):
        again(kept).prepare(anew=True)
    assert served_text(kept) == before
    assert sorted(kept.served.iterdir()) == pairs


class Nginx:
    """Serves the pair that it read at the last reload, as nginx does."""

    def __init__(self, kept: Certificates) -> None:
        self.kept = kept
        self.reloads = 0
        self.broken = ""
        self.server = http.server.HTTPServer(("127.0.0.1", kept.settings.port), http.server.BaseHTTPRequestHandler)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._read()
        self.server.get_request = self._accept  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def _read(self) -> None:
        self.context.load_cert_chain(self.kept.live / certificate.CERTIFICATE, self.kept.live / certificate.KEY)

    def _accept(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, place = self.server.socket.accept()
        return self.context.wrap_socket(connection, server_side=True), place

    def reload(self) -> None:
        if self.broken:
            raise FleetError(self.broken)
        self.reloads += 1
        self._read()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def nginx(kept: Certificates) -> Iterator[Nginx]:
    kept.prepare()
    server = Nginx(kept)
    kept.reload = server.reload
    yield server
    server.stop()


def test_served_certificate_needs_no_reload(kept: Certificates, nginx: Nginx) -> None:
    """The timer runs twice a day, and a needless reload would cut kept connections each time."""
    later = again(kept)
    later.renew()
    assert later.changes == []
    assert nginx.reloads == 0


def test_renewed_certificate_is_the_one_served(kept: Certificates, nginx: Nginx) -> None:
    """A new file renews nothing by itself; the run ends only after a handshake with the new certificate."""
    later = again(kept)
    later.renew(anew=True)
    assert nginx.reloads == 1
    assert later.changes[-1] == "nginx serves it"


@pytest.mark.usefixtures("nginx")
def test_run_that_was_killed_before_the_reload_is_mended_by_the_next(kept: Certificates) -> None:
    """The file has the new certificate and nginx the old one, although nothing is due."""
    again(kept).prepare(anew=True)
    later = again(kept)
    assert later.would_change(renews=True, anew=False)
    assert not later.would_change(renews=False, anew=False)
    later.renew()
    assert later.changes == ["nginx serves it"]
    assert not again(kept).would_change(renews=True, anew=False)


def test_certificate_that_nginx_refuses_is_taken_back(kept: Certificates, nginx: Nginx) -> None:
    before = served_text(kept)
    nginx.broken = "emerg: broken"
    with pytest.raises(FleetError, match="emerg: broken"):
        again(kept).renew(anew=True)
    assert served_text(kept) == before


def test_only_the_pair_before_is_kept(folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is no longer used can still be stolen; a folder with a relative path is cleaned too."""
    monkeypatch.chdir(folder)
    kept = Certificates(Path(), settings, nobody)
    for _ in range(4):
        kept.prepare(anew=True)
        kept.serve()
    assert len([path for path in kept.served.iterdir() if path.name != "live"]) == 2


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("There were too many requests of a given type :: too many certificates (5) already issued", "(rate limit)"),
        ("urn:ietf:params:acme:error:rateLimited", "(rate limit)"),
        ("DNS problem: NXDOMAIN", "gave no certificate"),
    ],
)
def test_refusal_of_an_authority_says_what_goes_on(
    kept: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    monkeypatch.setattr(certificate, "unreachable_reason", lambda *_: "")
    client = tmp_path / "bin/certbot"
    client.parent.mkdir()
    client.write_text(f"#!/bin/sh\necho '{said}'\necho 'Some challenges have failed.' >&2\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    with pytest.raises(FleetError) as error:
        again(kept, mode="acme").renew()
    assert told in str(error.value)
    assert said in str(error.value)
    assert "nginx goes on with what it has, valid until" in str(error.value)


def test_authority_is_not_asked_for_names_that_lead_elsewhere(kept: Certificates) -> None:
    """An authority allows only five failures an hour; names in .test lead nowhere."""
    with pytest.raises(FleetError) as error:
        again(kept, mode="acme").renew()
    assert "stack_host_names: " in str(error.value)
    assert all(f"\n{name}: " in str(error.value) for name in NAMES)
    assert list((kept.webroot / certificate.CHALLENGES).iterdir()) == []


def test_name_is_seen_through_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789")

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert certificate.unreachable_reason(f"{url}/token", "0123456789") == ""
        assert certificate.unreachable_reason(f"{url}/token", "another") == "another server answers"
        assert "answers 404" in certificate.unreachable_reason(f"{url}/missing", "0123456789")
        server.shutdown()
    assert "refused" in certificate.unreachable_reason(f"{url}/token", "0123456789")


def test_each_run_says_what_it_did(folder: Path, settings: Settings) -> None:
    file = folder / "settings.json"

    def run(mode: str, *, really: bool = True) -> dict[str, Any]:
        file.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(settings, mode=mode))))
        return certificate.keep(file, nobody, renews=False, anew=False, really=really)

    assert certificate.keep(file, nobody, renews=False, anew=False, really=False) == {"changed": True}
    with pytest.raises(FleetError, match="no certificate is kept here"):
        certificate.keep(file, nobody, renews=True, anew=False, really=True)
    assert run("self_signed", really=False) == {"changed": True}
    first, second = run("self_signed"), run("self_signed")
    assert (first["changed"], first["msg"][:12]) == (True, "self_signed:")
    assert (second["changed"], second["msg"][:25]) == (False, "nothing to do, valid unti")
    assert run("self_signed", really=False) == {"changed": False}
    assert run("pem", really=False) == {"changed": True}
