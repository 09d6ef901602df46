"""Checks the certificate before anything is touched."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from plugins.filter.routes import serves_https
from preflight.network import items
from preflight.variables import Variables, whole_number
from preflight.web import LABEL

EMAIL = re.compile(rf"[\w.+-]+@{LABEL}(\.{LABEL})+", re.IGNORECASE | re.ASCII)
FEWEST_RSA_BITS = 2048
"""No public authority signs a shorter key, or one on other curves: CA/Browser Forum Baseline Requirements, 6.1.5."""
CURVES = {"secp256r1", "secp384r1", "secp521r1"}
WEAK_HASHES = {"md5", "sha1"}
NEEDED = {"acme": ["stack_host_names", "certificate_email"], "pem": ["stack_host_names"]}
FILES = ["certificate_pem", "certificate_key"]

Resolver = Callable[[str], set[str]]


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def resolve(name: str) -> set[str]:
    """Ask the resolver of this machine for the addresses of a DNS name; there are none when it does not resolve."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def bad_certificate(variables: Variables) -> Iterator[str]:
    """Check the variables of the certificate role and the files that they name; yield a sentence for each problem."""
    mode = variables["certificate_mode"]
    if not serves_https(mode):
        return
    names = [str(name) for name in items(variables["stack_host_names"])]
    for needed in NEEDED.get(mode, []):
        if not variables[needed]:
            yield f"{needed} is empty; certificate_mode {mode} needs it"
    if variables["certificate_email"] and not EMAIL.fullmatch(str(variables["certificate_email"])):
        yield f"certificate_email is {variables['certificate_email']!r}: allowed is an address such as jane@example.com"
    if whole_number(variables["stack_port"]) == whole_number(variables["stack_https_port"]):
        yield f"stack_https_port is {variables['stack_https_port']}, and so is stack_port: allowed is another one"
    if mode == "acme":
        yield from _unknown_to_authorities(names)
        yield from _bad_directory(variables)
    if mode == "pem":
        yield from _bad_files(variables, names)


def _unknown_to_authorities(names: Iterable[str]) -> Iterator[str]:
    for position, name in enumerate(names):
        where = f"stack_host_names[{position}] is {name!r}"
        if _address(name):
            yield f"{where}: with certificate_mode acme allowed are DNS names"
        elif "." not in name:
            yield f"{where}: no authority knows it; allowed is a whole name such as www.example.com"


def _bad_directory(variables: Variables) -> Iterator[str]:
    directory = str(variables["certificate_acme_directory"])
    if urlsplit(directory).scheme != "https" or not urlsplit(directory).hostname:
        yield f"certificate_acme_directory is {directory!r}: allowed is an https URL"
    file = str(variables["certificate_acme_authorities"])
    if file and isinstance(found := _read_certificates(Path(file)), str):
        yield f"certificate_acme_authorities is {file!r}: {found}"
    count = whole_number(variables.get("ec2_count", 1)) or 1
    if count > 1:
        yield (
            f"ec2_count is {count}, but with certificate_mode acme each instance would ask for itself, and the "
            "authority might ask another one: allowed is one instance, or certificate_mode pem"
        )


def _read_certificates(file: Path) -> list[x509.Certificate] | str:
    """Read certificates, or say what is wrong with their file."""
    try:
        return x509.load_pem_x509_certificates(file.expanduser().read_bytes())
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except ValueError:
        return "it holds no certificate in PEM"


def _public_half(file: Path) -> bytes | str:
    """Compute the public half of a private key, or say what is wrong with its file."""
    try:
        key = load_pem_private_key(file.expanduser().read_bytes(), password=None)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except TypeError:
        return "it is encrypted, and nobody could tell nginx the password; allowed is a key without one"
    except (ValueError, UnsupportedAlgorithm):
        return "it holds no private key in PEM"
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _bad_files(variables: Variables, names: Collection[str]) -> Iterator[str]:
    paths = {name: str(variables[name]) for name in FILES}
    missing = [name for name in FILES if not paths[name]]
    if missing:
        yield from (f"{name} is empty; certificate_mode pem needs it" for name in missing)
        return
    chain, public = _read_certificates(Path(paths["certificate_pem"])), _public_half(Path(paths["certificate_key"]))
    if isinstance(chain, str):
        yield f"certificate_pem is {paths['certificate_pem']!r}: {chain}"
    if isinstance(public, str):
        yield f"certificate_key is {paths['certificate_key']!r}: {public}"
    if isinstance(chain, str) or isinstance(public, str):
        return
    certificate = chain[0]
    if certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public:
        yield (
            f"certificate_key is {paths['certificate_key']!r}: it is not the key of the first certificate in "
            f"{paths['certificate_pem']!r}; allowed is the pair that belongs together"
        )
    for problem in (*_weak(certificate), *_outside_its_time(certificate), *_uncovered(certificate, names)):
        yield f"certificate_pem is {paths['certificate_pem']!r}: {problem}"


def _weak(certificate: x509.Certificate) -> Iterator[str]:
    key = certificate.public_key()
    if isinstance(key, RSAPublicKey) and key.key_size < FEWEST_RSA_BITS:
        yield f"its RSA key has {key.key_size} bits: allowed are {FEWEST_RSA_BITS} or more"
    elif isinstance(key, EllipticCurvePublicKey) and key.curve.name not in CURVES:
        yield f"its key is on the curve {key.curve.name}: allowed are {', '.join(sorted(CURVES))}"
    signed_with = certificate.signature_hash_algorithm
    if signed_with and signed_with.name in WEAK_HASHES:
        yield f"it is signed with {signed_with.name}, which browsers refuse: allowed is SHA-256 or better"


def _outside_its_time(certificate: x509.Certificate) -> Iterator[str]:
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        yield f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if certificate.not_valid_before_utc > now:
        yield f"it is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only"


def _uncovered(certificate: x509.Certificate, names: Iterable[str]) -> Iterator[str]:
    try:
        listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        yield "it has no subjectAltName, and browsers read no other name: allowed is one that lists stack_host_names"
        return
    dns = {name.lower() for name in listed.get_values_for_type(x509.DNSName)}
    addresses = {str(address) for address in listed.get_values_for_type(x509.IPAddress)}
    for name in names:
        covering = {name.lower(), f"*.{name.lower().partition('.')[2]}"}
        if not covering & dns and _address(name) not in addresses:
            said = ", ".join(sorted(dns | addresses))
            yield f"it is not for {name}, which stack_host_names has, but for {said}"


def strange_names(variables: Variables, ours: Collection[str], ask: Resolver = resolve) -> Iterator[str]:
    """Yield a sentence for each host name that does not lead to this stack, because an authority would notice.

    ``ours`` are the addresses of the instances, none before the first run.
    """
    if variables["certificate_mode"] != "acme":
        return
    # The record that the ec2 role makes may not be there yet.
    made_here = variables.get("ec2_dns_zone") and (variables.get("ec2_dns_name") or variables["ec2_dns_zone"])
    for name in items(variables["stack_host_names"]):
        if name == made_here:
            continue
        found = ask(str(name))
        if not found:
            yield f"stack_host_names has {name}, which does not resolve: allowed is a name that leads to this stack"
        elif ours and not found & set(ours):
            yield (
                f"stack_host_names has {name}, which leads to {', '.join(sorted(found))} and not to this stack, which "
                f"is at {', '.join(sorted(ours))}: the authority would ask there"
            )
