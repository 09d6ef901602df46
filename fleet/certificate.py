"""Keeps a valid certificate where nginx reads it, and has nginx serve it.

The role runs it, and so does a timer on the machine, which needs no controller for a renewal. A new pair is written
beside the one that serves, checked, and takes its place in one step; whatever fails before leaves the old one.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fleet.system import FleetError, attempt, run

CERTIFICATE = "fullchain.pem"
KEY = "privkey.pem"
SOURCE = "source"
PLACEHOLDER = "placeholder"
RENEW_AT = 2 / 3
"""Share of the lifetime after which a certificate is renewed, as certbot does; lifetimes get shorter every year, so a
fixed number of days would be wrong soon: https://letsencrypt.org/docs/integration-guide/#when-to-renew."""
PLACEHOLDER_DAYS = 7
CONNECT_TIMEOUT_S = 5
RELOAD_TIMEOUT_S = 30
CHALLENGES = ".well-known/acme-challenge"
REQUEST = """[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
CN = {subject}
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {names}
"""
LONGEST_SUBJECT = 64
"""https://www.rfc-editor.org/rfc/rfc5280#appendix-A.1, ub-common-name."""


@dataclass(frozen=True)
class Settings:
    """What the role wrote down."""

    mode: str
    names: Sequence[str]
    address: str
    days: int
    email: str
    acme_directory: str
    authorities: str
    reader: int
    listens: str
    port: int


@dataclass(frozen=True)
class Certificate:
    """What a certificate says; times in seconds since 1970."""

    issuer: str
    begins: float
    ends: float
    names: frozenset[str]

    def due(self, now: float) -> bool:
        """Tell whether a third of its lifetime or less is left."""
        return now >= self.begins + (self.ends - self.begins) * RENEW_AT


def keep(file: Path, reload: Callable[[], None], *, renews: bool, anew: bool, really: bool) -> dict[str, Any]:
    """See to it that nginx can start, or, if it ``renews``, that it serves a certificate that is not due.

    The settings in ``file`` are in the folder where certificates are kept. ``reload`` has nginx read its configuration
    and the certificate again, ``anew`` gets a new one even when it is not due, and without ``really`` nothing changes.

    Raises:
        FleetError: There is no good certificate, or nginx does not serve it; then the one before does.
    """
    if not file.exists():
        if really:
            raise FleetError(f"there is no {file}: no certificate is kept here")
        return {"changed": True}
    # Waits: the timer and a deploy both have to be over one after the other.
    with (file.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        certificates = Certificates(file.parent, Settings(**json.loads(file.read_text())), reload)
        if not really:
            return {"changed": certificates.would_change(renews=renews, anew=anew)}
        (certificates.renew if renews else certificates.prepare)(anew=anew)
        changes = certificates.changes
        return {"changed": bool(changes), "msg": "\n".join(changes) or f"nothing to do, {certificates.until()}"}


class Certificates:
    """The certificates of one stack."""

    def __init__(
        self, folder: Path, settings: Settings, reload: Callable[[], None], clock: Callable[[], float] = time.time
    ) -> None:
        """Say where certificates are kept and for what; ``clock`` gives the seconds since 1970."""
        # As the link to the live pair resolves to, which is compared with the others.
        folder = folder.resolve()
        self.settings = settings
        self.reload = reload
        self.clock = clock
        self.served = folder / "served"
        self.live = self.served / "live"
        self.incoming = folder / "incoming"
        self.webroot = folder / "webroot"
        # An account and its certificates belong to one authority: who tries staging first loses nothing of either.
        self.acme = folder / "acme" / re.sub(r"\W+", "-", settings.acme_directory.partition("://")[2]).strip("-")
        self.changes: list[str] = []

    def would_change(self, *, renews: bool, anew: bool) -> bool:
        """Tell whether ``prepare``, or ``renew``, would change anything."""
        if self._missing(anew=anew):
            return True
        is_asked = renews and self.settings.mode == "acme" and (anew or not self._is_lineage_fresh())
        return is_asked or (renews and self._served() == "another")

    def prepare(self, *, anew: bool = False) -> None:
        """See to it that nginx can start: with a good certificate, or with a placeholder until there is one."""
        if get := self._missing(anew=anew):
            get()

    def renew(self, *, anew: bool = False) -> None:
        """Get a new certificate when it is due, and have nginx serve the one that is live.

        Raises:
            FleetError: There is no new one, or nginx does not serve it; then the one before does.
        """
        self.prepare(anew=anew)
        if self.settings.mode == "acme":
            self._ask_authority(anew=anew)
            if not self._is_live(self._lineage):
                self.install(self._lineage, "acme")
        self.serve()

    def install(self, source: Path, name: str) -> None:
        """Make the pair in a folder the live one, once it is on the disk whole and checked.

        Raises:
            FleetError: The pair is no good.
            OSError: It could not be written. Either way the live one stays.
        """
        pair = Path(tempfile.mkdtemp(dir=self.served, prefix=time.strftime("%Y%m%dT%H%M%S-", time.gmtime())))
        try:
            for file, mode in ((CERTIFICATE, 0o444), (KEY, 0o400)):
                _write(pair / file, (source / file).read_bytes(), mode, self.settings.reader)
            _write(pair / SOURCE, f"{name}\n".encode(), 0o444, self.settings.reader)
            check(pair, self.clock())
            pair.chmod(0o755)
            self._point_to(pair.name)
        except BaseException:
            shutil.rmtree(pair)
            raise
        self.changes.append(f"{name}: {read(self.live / CERTIFICATE).issuer}, {self.until()}")

    def until(self) -> str:
        """Say for a person until when the live certificate is valid, such as "valid until 2026-11-21 10:00 UTC"."""
        return time.strftime("valid until %Y-%m-%d %H:%M UTC", time.gmtime(read(self.live / CERTIFICATE).ends))

    def serve(self) -> None:
        """Have nginx serve the live certificate, and prove it; one that does not run yet will start with it.

        Raises:
            FleetError: It does not; the pair before is the live one again.
        """
        answer = self._served()
        if answer in ("live", "nobody"):
            self._prune_old()
            return
        before = self._before()
        try:
            self.reload()
            self._wait_until_served()
        except FleetError:
            if before:
                self._point_to(before.name)
            raise
        self.changes.append("nginx serves it")
        self._prune_old()

    def _missing(self, *, anew: bool) -> Callable[[], None] | None:
        """Give what gets a pair that nginx can start with; None while there is one."""
        mode = self.settings.mode
        if mode == "pem":
            return None if self._is_live(self.incoming) else partial(self.install, self.incoming, mode)
        if mode == "self_signed":
            is_good = self._good(mode) and not anew
            return None if is_good else partial(self._self_sign, mode, self.settings.days)
        if self._usable() and self._source() != PLACEHOLDER:
            return None
        if self._lineage_usable():
            return partial(self.install, self._lineage, mode)
        return None if self._good(PLACEHOLDER) else partial(self._self_sign, PLACEHOLDER, PLACEHOLDER_DAYS)

    def _wait_until_served(self) -> None:
        deadline = time.monotonic() + RELOAD_TIMEOUT_S
        while self._served() != "live":
            if time.monotonic() > deadline:
                raise FleetError(
                    f"nginx was told to reload, but {RELOAD_TIMEOUT_S} s later {self.settings.listens}:"
                    f"{self.settings.port} still serves another certificate; see: docker compose logs nginx"
                )
            time.sleep(0.2)

    def _served(self) -> str:
        """Say what is served: the live certificate, another one, or nothing because nobody listens."""
        # The live certificate is the only one that this client trusts, so a handshake that succeeds was with it.
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        client.load_verify_locations(cadata=_leaf(self.live / CERTIFICATE))
        name = next(iter(self.settings.names), self.settings.address)
        try:
            place = self.settings.listens, self.settings.port
            with (
                socket.create_connection(place, CONNECT_TIMEOUT_S) as connection,
                client.wrap_socket(connection, server_hostname=name),
            ):
                return "live"
        except ConnectionRefusedError:
            return "nobody"
        except OSError:
            return "another"

    def _point_to(self, pair: str) -> None:
        new = self.served / "live.new"
        new.unlink(missing_ok=True)
        new.symlink_to(pair)
        new.replace(self.live)

    def _pairs(self) -> list[Path]:
        """List the pairs, newest first; their names begin with the time."""
        return sorted((path for path in self.served.iterdir() if path.is_dir() and not path.is_symlink()), reverse=True)

    def _before(self) -> Path | None:
        current = self.live.resolve()
        others = [pair for pair in self._pairs() if pair != current and (pair / SOURCE).exists()]
        return others[0] if others else None

    def _prune_old(self) -> None:
        """Remove all but the live pair and the one before it, those of runs that were killed included."""
        kept = {self.live.resolve(), self._before()}
        for pair in self._pairs():
            if pair not in kept:
                shutil.rmtree(pair)

    def _source(self) -> str:
        file = self.live / SOURCE
        return file.read_text().strip() if file.exists() else ""

    def _usable(self) -> bool:
        return _usable(self.live, self.clock())

    def _good(self, source: str) -> bool:
        """Tell whether the live pair comes from there, has the right names and is not due."""
        if self._source() != source or not self._usable():
            return False
        certificate = read(self.live / CERTIFICATE)
        return certificate.names == frozenset(self._own_names()) and not certificate.due(self.clock())

    def _own_names(self) -> list[str]:
        """List the names of a self-signed certificate, the machine's own address among them."""
        return list(dict.fromkeys([*self.settings.names, self.settings.address]))

    def _self_sign(self, source: str, days: int) -> None:
        names = self._own_names()
        listed = ", ".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
        with tempfile.TemporaryDirectory(dir=self.served.parent) as scratch:
            request = Path(scratch) / "request.cnf"
            request.write_text(REQUEST.format(subject=names[0][:LONGEST_SUBJECT], names=listed))
            files = ["-config", str(request), "-keyout", f"{scratch}/{KEY}", "-out", f"{scratch}/{CERTIFICATE}"]
            curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
            run(["openssl", "req", "-x509", "-sha256", "-days", str(days), *curve, *files])
            self.install(Path(scratch), source)

    def _is_live(self, pair: Path) -> bool:
        """Tell whether a pair is the live one."""
        return all(
            (one / file).exists() and (one / file).read_bytes() == (self.live / file).read_bytes()
            for file in (CERTIFICATE, KEY)
            for one in (self.live, pair)
        )

    @property
    def _lineage(self) -> Path:
        """Where certbot leaves the pair."""
        return self.acme / "config/live/stack"

    def _lineage_usable(self) -> bool:
        """Tell whether certbot has left a good pair for these names."""
        if not _usable(self._lineage, self.clock()):
            return False
        return read(self._lineage / CERTIFICATE).names == frozenset(self.settings.names)

    def _is_lineage_fresh(self) -> bool:
        return self._lineage_usable() and not read(self._lineage / CERTIFICATE).due(self.clock())

    def _ask_authority(self, *, anew: bool) -> None:
        """Have certbot ask, which does nothing while the certificate is not due."""
        if anew or not self._is_lineage_fresh():
            self._refuse_unreachable_names()
        folders = [f"--{folder}-dir={self.acme / folder}" for folder in ("config", "work", "logs")]
        domains = [word for name in self.settings.names for word in ("--domain", name)]
        command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--email", self.settings.email, *folders]
        command += ["--server", self.settings.acme_directory, "--webroot", "--webroot-path", str(self.webroot)]
        command += ["--cert-name", "stack", "--renew-with-new-domains", "--key-type", "ecdsa"]
        command += ["--max-log-backups", "10", "--force-renewal" if anew else "--keep-until-expiring", *domains]
        trusted = {"REQUESTS_CA_BUNDLE": self.settings.authorities} if self.settings.authorities else {}
        # It says on stdout why an authority refused, and on stderr that one did.
        done = attempt(command, env=os.environ | trusted, stderr=subprocess.STDOUT)
        if done.returncode:
            raise FleetError(self._words(done.stdout.strip()))

    def _words(self, said: str) -> str:
        """Say for a person why the authority gave no certificate."""
        now = f"nginx goes on with what it has, {self.until()}"
        if re.search(r"too many|rateLimited", said, re.IGNORECASE):
            return (
                f"{self.settings.acme_directory} refuses for now, because it was asked too often (rate limit): {now}. "
                f"The timer asks again; while you try things out, set certificate_staging: true.\n{said}"
            )
        return f"{self.settings.acme_directory} gave no certificate: {now}.\n{said}"

    def _refuse_unreachable_names(self) -> None:
        """Ask every name for a file of ours, as the authority will: its own refusals count against a limit."""
        challenge = self.webroot / CHALLENGES / f"flask-fleet-{secrets.token_hex(8)}"
        text = secrets.token_hex(16)
        _write(challenge, text.encode(), 0o444)
        try:
            found = {
                name: unreachable_reason(f"http://{name}/{CHALLENGES}/{challenge.name}", text)
                for name in self.settings.names
            }
        finally:
            challenge.unlink()
        problems = [f"{name}: {problem}" for name, problem in found.items() if problem]
        if problems:
            listed = "\n".join(problems)
            raise FleetError(
                "stack_host_names: the authority could not see that these names are this stack's, so it was not "
                f"asked:\n{listed}\nEach has to lead to {self.settings.address}, port 80, from everywhere."
            )


def read(file: Path) -> Certificate:
    """Read a certificate, in PEM, that of the server first."""
    about = ["-noout", "-startdate", "-enddate", "-issuer", "-ext", "subjectAltName"]
    said = run(["openssl", "x509", "-in", str(file), *about])
    fields = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", said)
    return Certificate(
        issuer=fields["issuer"].strip(),
        begins=ssl.cert_time_to_seconds(fields["notBefore"]),
        ends=ssl.cert_time_to_seconds(fields["notAfter"]),
        names=frozenset(str(ipaddress.ip_address(name)) if _is_address(name) else name for name in names),
    )


def check(pair: Path, now: float) -> None:
    """Check a folder with a certificate and its key as nginx will.

    Raises:
        FleetError: nginx would not start with it, or no client would take it.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pair / CERTIFICATE, pair / KEY)
    except ssl.SSLError as error:
        raise FleetError(f"certificate and key cannot be used together: {error}") from error
    if read(pair / CERTIFICATE).ends <= now:
        raise FleetError("the certificate has expired")


def unreachable_reason(url: str, expected: str) -> str:
    """Look whether a file of ours is what a URL answers; give why it is not, empty when it is."""
    # Without proxies: the authority has none either.
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with browser.open(url, timeout=CONNECT_TIMEOUT_S) as answer:
            said = answer.read(len(expected) + 1).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return f"it answers {error.code} there"
    except OSError as error:
        return str(getattr(error, "reason", error))
    return "" if said == expected else "another server answers"


def _usable(pair: Path, now: float) -> bool:
    """Tell whether nginx could serve a pair, which need not exist."""
    try:
        check(pair, now)
    except (FleetError, FileNotFoundError):
        return False
    return True


def _is_address(name: str) -> bool:
    """Tell IP addresses from DNS names."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _leaf(file: Path) -> str:
    """Read the first certificate of a file in PEM."""
    end = "-----END CERTIFICATE-----\n"
    return file.read_text().partition(end)[0] + end


def _write(path: Path, content: bytes, mode: int, owner: int = -1) -> None:
    """Write a new file that nobody else can read meanwhile, down to the disk; owner -1 is this process's own."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchown(descriptor, owner, -1)
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
