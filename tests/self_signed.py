"""Certificates for tests that speak TLS."""

import ssl
import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str) -> Path:
    """Make a certificate.

    Args:
        folder: Where to.
        name: What it is for.

    Returns:
        The file; its key is beside it.
    """
    file = folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-out", str(file)]
    subprocess.run([*command, "-keyout", str(file.with_suffix(".key"))], check=True, capture_output=True)
    return file


def serving(certificate: Path) -> ssl.SSLContext:
    """Serve it.

    Args:
        certificate: As ``self_signed`` made it.

    Returns:
        A context for a server.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context
