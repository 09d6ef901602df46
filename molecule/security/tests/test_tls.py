"""HTTPS with certificates of a real ACME authority: what is served, what is refused, and what a renewal does."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from testinfra.host import Host

from bench.load import Load
from bench.playbook import Outcome, playbook
from bench.stack import Stack, assert_nothing_lost
from tests.live_authority import Authority
from tests.live_outsider import Outsider
from tests.project import ROOT, load_mapping
from tests.self_signed import self_signed
from tests.slow_clients import CROWD, CUT_WITHIN_S, slow_crowd

# site.yml and two deploys.
pytestmark = pytest.mark.long

NAMES = ["www.fleet.test", "fleet.test"]
NAME = NAMES[0]
STRANGER = "evil.test"
DIRECTORY = load_mapping(ROOT / "roles/certificate/defaults/main.yml")["certificate_directory"]
RENEW = "flask-fleet certificate renew"
"""The command of the timer, with the default folders."""
LIVE = f"{DIRECTORY}/served/live"
UNIT = "flask-fleet-certificate"
NGINX = 10002
SSLYZE = ROOT / "molecule/security/sslyze.txt"
TIMEOUT_S = 10
RATE = 50
CLIENTS = 4
MOST_PER_ADDRESS = 80
"""Requests per second, and at once as a burst: fewer than three replicas take, so that others find room."""
FLOOD_S = 15


@dataclass
class Site:
    """A stack that is known by names.

    Attributes:
        authority: The ACME authority that issued its certificate.
        hosts: File that takes the place of /etc/hosts on this machine for whoever needs the names.
        variables: The extra variables with which it was deployed.
    """

    stack: Stack
    authority: Authority
    hosts: Path
    variables: dict[str, object]

    def deploy(self) -> Outcome:
        """Deploy it again."""
        return self.playbook("playbooks/deploy.yml")

    def playbook(self, path: str) -> Outcome:
        """Run a playbook on a machine whose resolver knows the names."""
        return playbook(path, "--extra-vars", json.dumps(self.variables), prefix=self.knowing_names())

    def knowing_names(self) -> list[str]:
        """Write the words before a command that make the names known to it, and to nobody else on this machine."""
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(self.hosts)]

    def connect(
        self, sni: str | None = NAME, offers: tuple[str, ...] = ("http/1.1",), trusted: Path | None = None
    ) -> ssl.SSLSocket:
        """Shake hands over TLS, and trust only the authority, or else only the certificate that is given."""
        context = ssl.create_default_context(cafile=str(trusted or self.authority.root))
        context.check_hostname = sni is not None
        context.set_alpn_protocols(list(offers))
        plain = socket.create_connection((self.stack.address, 443), TIMEOUT_S)
        return context.wrap_socket(plain, server_hostname=sni)

    def serial(self) -> str:
        """Return the serial number of the served certificate, whose chain, name and time were checked."""
        with self.connect() as connection:
            certificate = connection.getpeercert()
        assert certificate
        return str(certificate["serialNumber"])

    def ask(self, request: str) -> str:
        """Send a request over HTTPS and return the whole answer."""
        with self.connect() as connection:
            connection.sendall(request.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def plainly(self, method: str, path: str, host: str = NAME) -> tuple[int, str]:
        """Send a request over plain HTTP; return status and Location."""
        with closing(http.client.HTTPConnection(self.stack.address, timeout=TIMEOUT_S)) as connection:
            connection.request(method, path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Location", "")

    def on_machine(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of a shell on the instance, as root; each call costs seconds."""
        with self.stack.host.sudo():
            done = self.stack.host.run("sh -c %s", command)
        return subprocess.CompletedProcess([], done.rc, done.stdout, done.stderr)

    def live_serial(self) -> str:
        """Return the serial number of the certificate that should be served, as Python writes it."""
        said = self.on_machine(f"openssl x509 -noout -serial -in {LIVE}/fullchain.pem").stdout
        return said.strip().partition("=")[2]


@pytest.fixture(scope="module")
def site(host: Host, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Deploy the stack with certificates of an authority, and afterwards as the scenario has it."""
    folder = tmp_path_factory.mktemp("tls")
    with host.sudo():
        # What an earlier run left is of an authority that is no more.
        host.check_output(f"rm -rf {DIRECTORY}/acme")
    authority = Authority(host, folder)
    authority.start()
    authority.point(dict.fromkeys(NAMES, stack.address))
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{stack.address} {' '.join(NAMES)}\n")
    variables: dict[str, object] = {
        "certificate_mode": "acme",
        "stack_host_names": NAMES,
        "certificate_email": "jane@fleet.test",
        "certificate_acme_directory": authority.directory,
        "certificate_acme_authorities": str(authority.own),
        "stack_requests_per_address": MOST_PER_ADDRESS,
    }
    site = Site(stack, authority, folder / "hosts", variables)
    # All of it, because security group and firewall open port 443.
    outcome = site.playbook("site.yml")
    assert outcome.ok, outcome.said
    yield site
    authority.stop()
    authority.point({})
    outcome = playbook("playbooks/deploy.yml")
    assert outcome.ok, outcome.said


@pytest.mark.parametrize("name", NAMES)
def test_certificate_is_the_authoritys(site: Site, name: str) -> None:
    """It holds for each name and comes with its chain, as a browser checks it."""
    with site.connect(name) as connection:
        assert connection.version() == "TLSv1.3"


def test_mozillas_intermediate_profile_is_kept(site: Site) -> None:
    """Protocols, ciphers, curves, key and lifetime follow it, and no known attack works."""
    program = ROOT / ".venv/sslyze/bin/sslyze"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ROOT / ".venv/sslyze")], check=True)
        install = [
            str(program.with_name("pip")),
            "install",
            "--quiet",
            "--require-hashes",
            "--requirement",
            str(SSLYZE),
        ]
        subprocess.run(install, check=True)
    scan = [str(program), "--mozilla_config", "intermediate", "--certinfo_ca_file", str(site.authority.root), NAME]
    done = subprocess.run([*site.knowing_names(), *scan], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{NAME}:443: OK - Compliant." in done.stdout
    assert "Supplied CA file CA Store (N/A):   OK - Certificate is trusted" in done.stdout


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308), ("PUT", 308), ("DELETE", 308), ("OPTIONS", 308)]
)
def test_plain_requests_are_led_to_https(site: Site, method: str, status: int) -> None:
    """The redirect keeps path and query, and the method too: at a 301 a browser would turn a POST into a GET."""
    assert site.plainly(method, "/a%20b?c=d") == (status, f"https://{NAME}/a%20b?c=d")


def test_health_and_challenges_need_no_https(site: Site) -> None:
    """A load balancer asks for health, and an authority must get its answer before there is a certificate."""
    assert site.plainly("GET", "/healthz") == (200, "")
    assert site.plainly("GET", "/.well-known/acme-challenge/nothing") == (404, "")
    assert site.plainly("GET", "/.well-known/acme-challenge/../../etc/passwd")[0] != 200


@pytest.mark.parametrize("path", ["/", "/nowhere"])
def test_browsers_are_told_to_stay(site: Site, path: str) -> None:
    """The HSTS header lasts two years and is on errors too; plain HTTP does not send it."""
    answer = site.ask(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n")
    assert re.findall(r"(?im)^strict-transport-security: (.*)\r$", answer) == ["max-age=63072000"]


def test_http2_is_spoken(site: Site) -> None:
    """Clients without HTTP/2 get HTTP/1.1."""
    chosen = []
    for offers in (("h2", "http/1.1"), ("http/1.1",)):
        with site.connect(offers=offers) as connection:
            chosen.append(connection.selected_alpn_protocol())
    assert chosen == ["h2", "http/1.1"]


@pytest.mark.parametrize("sni", [STRANGER, f"x.{NAME}", None])
def test_wrong_name_gets_no_certificate(site: Site, sni: str | None) -> None:
    """Whoever scans addresses does not learn whose machine this is."""
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        site.connect(sni)


@pytest.mark.parametrize(
    "request_line", [f"GET / HTTP/1.1\r\nHost: {STRANGER}", f"GET https://{STRANGER}/ HTTP/1.1\r\nHost: {NAME}"]
)
def test_wrong_name_inside_a_right_handshake_is_misdirected(site: Site, request_line: str) -> None:
    """If only the handshake were checked, whoever knows one of our names would reach the default server."""
    answer = site.ask(f"{request_line}\r\nConnection: close\r\n\r\n")
    assert answer.startswith("HTTP/1.1 421 ")


def test_nobody_is_led_to_a_strangers_name(site: Site) -> None:
    """A redirect to the name in any Host header would let a stranger misuse our site."""
    status, location = site.plainly("GET", "/", host=STRANGER)
    assert status != 200
    assert location == ""


def test_key_is_for_nginx_alone(site: Site) -> None:
    """The folders above are closed as well, so an intruder in another container or account finds nothing."""
    stat = f"stat --format %u:%a {LIVE}/privkey.pem {DIRECTORY}"
    assert site.on_machine(stat).stdout.split() == [f"{NGINX}:400", "0:700"]


def test_deploy_again_changes_nothing(site: Site) -> None:
    """Account and certificate are kept, because an authority issues only five equal certificates a week."""
    before = site.serial()
    again = site.deploy()
    assert again.ok, again.said
    assert set(again.changed.values()) == {0}
    assert site.serial() == before


def test_timer_renews_without_a_controller(site: Site) -> None:
    """The timer is enabled, also after a reboot, and today it finds nothing to renew."""
    before = site.serial()
    on = f"systemctl is-enabled {UNIT}.timer && systemctl is-active {UNIT}.timer"
    done = site.on_machine(f"{on} && systemctl start {UNIT}.service && journalctl --unit {UNIT} --lines 5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("enabled\nactive\n")
    assert "nothing to do, valid until" in done.stdout
    assert site.serial() == before


def test_slow_clients_are_cut_and_fail_nobody(site: Site) -> None:
    """A handshake costs nginx much more than its clients, and they keep the connection open."""
    url, trusted = f"https://{NAME}", str(site.authority.root)
    trust = ssl.create_default_context(cafile=trusted)
    address = site.stack.address
    with (
        ThreadPoolExecutor(1) as pool,
        Load(url, rate=RATE, clients=CLIENTS, address=address, authorities=trusted) as load,
    ):
        lasted = pool.submit(slow_crowd, address, NAME, trust).result()
    report = load.report()
    print(f"cut after {min(lasted):.1f} to {max(lasted):.1f} s; p99 of the others {report.latency.p99 * 1000:.0f} ms")
    assert len(lasted) == CROWD
    assert max(lasted) <= CUT_WITHIN_S
    assert report.failures() == {}, report.examples


def test_flood_from_one_address_fails_nobody_else(site: Site, outsider: Outsider) -> None:
    """It sends as fast as it can, 10 requests at a time on each of 50 connections, with the machine's only CPU."""
    site.stack.host.check_output("apt-get install --yes --no-install-recommends nghttp2-client")
    url, trusted = f"https://{NAME}", str(site.authority.root)
    flood = f"nice h2load --clients=50 --max-concurrent-streams=10 --duration={FLOOD_S}"
    with Load(url, rate=RATE, clients=CLIENTS, address=site.stack.address, authorities=trusted) as load:
        done = outsider.run(f"{flood} --connect-to={site.stack.address}:443 {url}/whoami")
    counted = re.search(r"^status codes: (\d+) 2xx, 0 3xx, (\d+) 4xx, 0 5xx", done.stdout, re.MULTILINE)
    assert counted, done.stdout + done.stderr
    answered, refused = int(counted[1]), int(counted[2])
    report = load.report()
    print(f"{refused} of {answered + refused} refused; p99 of the others {report.latency.p99 * 1000:.0f} ms")
    # A second's requests as a burst, and those of each second.
    assert answered <= MOST_PER_ADDRESS * (FLOOD_S + 2)
    assert refused > answered
    assert report.failures() == {}, report.examples


def test_renewed_certificate_is_served_without_a_lost_request(site: Site) -> None:
    """A handshake proves it, because the file on the disk does not; the clients notice nothing."""
    before = site.serial()
    url, trusted = f"https://{NAME}", str(site.authority.root)
    with Load(url, rate=RATE, clients=CLIENTS, address=site.stack.address, authorities=trusted) as load:
        done = site.on_machine(f"{RENEW} --anew")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("nginx serves it")
    assert site.serial() != before
    assert_nothing_lost(load)


def test_renewal_that_is_killed_leaves_a_certificate_that_serves(site: Site) -> None:
    """Nginx can start again at any moment of it, and the next run completes what the killed one began."""
    nginx = f"docker compose --project-directory {site.stack.directory} exec -T nginx"
    for seconds in (0.5, 2, 3, 4):
        killed = f"timeout --signal KILL {seconds} {RENEW} --anew"
        tested = site.on_machine(f"{killed}; {nginx} nginx -t -c /etc/nginx/stack/nginx.conf")
        assert tested.returncode == 0, tested.stderr
        assert site.serial()
    mended = site.on_machine(RENEW)
    assert mended.returncode == 0, mended.stderr
    assert site.live_serial() == site.serial()


def test_name_that_leads_elsewhere_is_named_and_nothing_lost(site: Site) -> None:
    """The authority would count the failure, and after five of them refuse to answer for an hour."""
    before = site.serial()
    right = dict.fromkeys(NAMES, site.stack.address)
    site.authority.point(right | {NAMES[1]: "192.0.2.1"})
    try:
        failed = site.on_machine(f"{RENEW} --anew")
    finally:
        site.authority.point(right)
    assert failed.returncode == 1
    assert "stack_host_names: the authority could not see" in failed.stderr
    assert f"\n{NAMES[1]}: " in failed.stderr
    assert f"\n{NAMES[0]}: " not in failed.stderr
    assert site.serial() == before


def test_authority_that_is_away_takes_nothing_away(site: Site) -> None:
    """The certificate is valid for weeks, and the next try is in twelve hours."""
    before = site.serial()
    site.authority.stop()
    try:
        failed = site.on_machine(f"{RENEW} --anew")
    finally:
        site.authority.start()
    assert failed.returncode == 1
    assert "gave no certificate: nginx goes on with what it has, valid until" in failed.stderr
    # The authority came back with another root: only that it is the same certificate can be said.
    assert site.live_serial() == before


def test_pem_of_ones_own_is_served(site: Site, tmp_path: Path) -> None:
    """Its authority may have no ACME, such as a company's; this test is the last, because it ends the mode acme."""
    pem = self_signed(tmp_path, NAME)
    given = {
        "certificate_mode": "pem",
        "stack_host_names": [NAME],
        "certificate_pem": str(pem),
        "certificate_key": str(pem.with_suffix(".key")),
    }
    deployed = playbook("playbooks/deploy.yml", "--extra-vars", json.dumps(given))
    assert deployed.ok, deployed.said
    with site.connect(trusted=pem) as connection:
        assert connection.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(pem.read_text())
