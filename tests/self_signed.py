"""Certificates for tests that speak TLS."""

import ssl
import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str) -> Path:
    """Make a self-signed certificate for a host name; its key is beside it, with the suffix ``.key``."""
    file = folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-out", str(file)]
    subprocess.run([*command, "-keyout", str(file.with_suffix(".key"))], check=True, capture_output=True)
    return file


def serving(certificate: Path) -> ssl.SSLContext:
    """Make a server's context with a certificate and the key beside it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context
