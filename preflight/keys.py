"""Reads the public halves of key pairs, from the private key here and from AWS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key


def public_half(file: Path) -> str | None:
    """Compute the public half of a private key, its type and data; None when the file is no key that can be read."""
    try:
        key = load_ssh_private_key(file.read_bytes(), password=None)
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm):
        return None
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def public_halves(ec2: Any, names: Sequence[str]) -> dict[str, str]:
    """Ask AWS for the public halves of key pairs, types and data by name, without those that it does not know."""
    filters = [{"Name": "key-name", "Values": list(names)}]
    pairs = ec2.describe_key_pairs(Filters=filters, IncludePublicKey=True)["KeyPairs"]
    return {one["KeyName"]: " ".join(one["PublicKey"].split()[:2]) for one in pairs if one.get("PublicKey")}
