"""What preflight refuses about certificates before anything is touched."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from preflight import certificate
from tests.project import ROOT, load_mapping

DEFAULTS = {
    name: option["default"]
    for role in ("certificate", "stack")
    for name, option in load_mapping(ROOT / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"][
        "options"
    ].items()
    if "default" in option
}
PEM = {"certificate_mode": "pem", "stack_host_names": ["www.example.com"]}
ACME = PEM | {"certificate_mode": "acme", "certificate_email": "jane@example.com"}
KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)

Pair = Callable[..., dict[str, Any]]


def problems(**changes: Any) -> list[str]:
    return list(certificate.bad_certificate(DEFAULTS | changes))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Return a function that writes a certificate for www.example.com with its key, and gives its variables."""

    def make(
        *,
        key: Any = KEY,
        other_key: Any = None,
        names: tuple[str, ...] = ("www.example.com", "*.example.org"),
        lives: tuple[datetime.datetime, datetime.datetime] = (NOW - DAY, NOW + 90 * DAY),
        password: bytes | None = None,
    ) -> dict[str, Any]:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "www.example.com")])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(lives[0]).not_valid_after(lives[1])
        listed: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        listed.append(x509.IPAddress(ipaddress.ip_address("192.0.2.7")))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(listed), critical=False)
        files = {"certificate_pem": tmp_path / "fullchain.pem", "certificate_key": tmp_path / "privkey.pem"}
        signed = builder.sign(key, hashes.SHA256())
        files["certificate_pem"].write_bytes(signed.public_bytes(Encoding.PEM))
        secrecy = BestAvailableEncryption(password) if password else NoEncryption()
        text = (other_key or key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secrecy)
        files["certificate_key"].write_bytes(text)
        return PEM | {name: str(file) for name, file in files.items()}

    return make


@pytest.mark.parametrize(
    "given",
    [
        {},
        # Without a certificate nothing of it matters.
        {"stack_host_names": ["*.example.com"], "certificate_pem": "/no/such/file"},
        {"certificate_mode": "self_signed"},
        {"certificate_mode": "self_signed", "stack_host_names": ["localhost", "127.0.0.1"]},
        ACME,
        # As -e gives them.
        ACME | {"stack_https_port": "8443", "ec2_count": "1"},
    ],
)
def test_what_is_in_order_is_accepted(given: dict[str, Any]) -> None:
    assert problems(**given) == []


def test_good_pair_is_accepted(pair: Pair) -> None:
    given = pair()
    assert problems(**given) == []
    assert problems(**given | {"stack_host_names": ["www.example.com", "any.example.org", "192.0.2.7"]}) == []


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("192.0.2.7", "with certificate_mode acme allowed are DNS names"),
        ("localhost", "no authority knows it; allowed is a whole name such as www.example.com"),
    ],
)
def test_name_that_no_authority_knows_is_refused(name: str, allowed: str) -> None:
    (problem,) = problems(**ACME | {"stack_host_names": [name]})
    assert problem.startswith(f"stack_host_names[0] is {name!r}: ")
    assert allowed in problem


@pytest.mark.parametrize("needed", ["stack_host_names", "certificate_email"])
def test_acme_needs_names_and_an_address_to_write_to(needed: str) -> None:
    empty = type(ACME[needed])()
    assert problems(**ACME | {needed: empty}) == [f"{needed} is empty; certificate_mode acme needs it"]


@pytest.mark.parametrize("email", ["jane", "jane@", "jane@example", "jane doe@example.com", "--agree-tos@example.com "])
def test_email_that_is_none_is_refused(email: str) -> None:
    (problem,) = problems(**ACME | {"certificate_email": email})
    assert problem == f"certificate_email is {email!r}: allowed is an address such as jane@example.com"


@pytest.mark.parametrize("url", ["http://acme.example.com/directory", "acme.example.com", "https://"])
def test_directory_is_asked_over_https(url: str) -> None:
    """Over plain HTTP somebody in between could answer for the authority."""
    said = f"certificate_acme_directory is {url!r}: allowed is an https URL"
    assert problems(**ACME | {"certificate_acme_directory": url}) == [said]


def test_authorities_of_a_directory_are_read(pair: Pair, tmp_path: Path) -> None:
    file = pair()["certificate_pem"]
    assert problems(**ACME | {"certificate_acme_authorities": file}) == []
    said = f"certificate_acme_authorities is '{tmp_path}/none': it cannot be read (No such file or directory)"
    assert problems(**ACME | {"certificate_acme_authorities": f"{tmp_path}/none"}) == [said]


def test_several_instances_cannot_ask_an_authority() -> None:
    """The authority connects to the name, and chance decides which instance answers."""
    (problem,) = problems(**ACME | {"ec2_count": 2})
    assert problem.startswith("ec2_count is 2, but with certificate_mode acme")


def test_one_port_cannot_be_both() -> None:
    said = "stack_https_port is 443, and so is stack_port: allowed is another one"
    assert problems(certificate_mode="self_signed", stack_port="443") == [said]


def test_files_of_mode_pem_have_to_be_there(tmp_path: Path) -> None:
    names = ("certificate_pem", "certificate_key")
    assert problems(**PEM) == [f"{name} is empty; certificate_mode pem needs it" for name in names]
    (tmp_path / "empty").touch()
    assert problems(**PEM, **dict.fromkeys(names, str(tmp_path / "empty"))) == [
        f"certificate_pem is '{tmp_path}/empty': it holds no certificate in PEM",
        f"certificate_key is '{tmp_path}/empty': it holds no private key in PEM",
    ]


def refused(given: dict[str, Any]) -> str:
    """Return the only problem of a pair."""
    (problem,) = problems(**given)
    return problem


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"other_key": ec.generate_private_key(ec.SECP256R1())}, "it is not the key of the first certificate in"),
        ({"lives": (NOW - 9 * DAY, NOW - DAY)}, f"it expired on {NOW - DAY:%Y-%m-%d %H:%M} UTC"),
        ({"lives": (NOW + DAY, NOW + 2 * DAY)}, f"it is valid from {NOW + DAY:%Y-%m-%d %H:%M} UTC only"),
        ({"names": ()}, "it has no subjectAltName"),
        ({"key": rsa.generate_private_key(65537, 1024)}, "its RSA key has 1024 bits: allowed are 2048 or more"),  # noqa: S505
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "its key is on the curve secp256k1"),
        # Nginx would wait for somebody to type the password.
        ({"password": b"secret"}, "it is encrypted"),
    ],
    ids=["other key", "expired", "not valid yet", "no names", "short key", "strange curve", "encrypted"],
)
def test_pair_that_nginx_or_a_browser_would_refuse_is_refused(pair: Pair, how: dict[str, Any], said: str) -> None:
    assert said in refused(pair(**how))


def test_certificate_for_other_names_is_refused(pair: Pair) -> None:
    """A wildcard covers one level, and not the name above it."""
    for name in ("example.com", "example.org", "a.b.example.org", "192.0.2.8"):
        problem = refused(pair() | {"stack_host_names": [name]})
        assert f"it is not for {name}, which stack_host_names has, but for *.example.org, 192.0.2.7" in problem


def strange(found: set[str], ours: list[str], **changes: Any) -> list[str]:
    """Check the names when each of them leads to some addresses."""
    return list(certificate.strange_names(DEFAULTS | ACME | changes, ours, lambda _: found))


def test_name_has_to_lead_here() -> None:
    said = "stack_host_names has www.example.com, which does not resolve: allowed is a name that leads to this stack"
    assert strange(set(), []) == [said]
    (problem,) = strange({"192.0.2.1"}, ["192.0.2.7"])
    assert "www.example.com, which leads to 192.0.2.1 and not to this stack, which is at 192.0.2.7: " in problem
    assert strange({"192.0.2.7", "2001:db8::7"}, ["192.0.2.7"]) == []
    # Before the first run nobody knows the address.
    assert strange({"192.0.2.1"}, []) == []
    assert strange(set(), [], certificate_mode="self_signed") == []


def test_record_that_the_run_itself_makes_need_not_be_there() -> None:
    """A first run could not succeed otherwise."""
    assert strange(set(), [], ec2_dns_zone="example.com", ec2_dns_name="www.example.com") == []
    assert strange(set(), [], ec2_dns_zone="www.example.com", ec2_dns_name="") == []
    assert strange(set(), [], ec2_dns_zone="example.com", ec2_dns_name="other.example.com") != []


def test_resolver_is_asked() -> None:
    assert "127.0.0.1" in certificate.resolve("localhost")
    assert certificate.resolve("no-such-host.invalid") == set()
