"""The halves of key pairs: the private one here, the public one at AWS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key


def public_half(file: Path) -> str | None:
    """Compute the public half of a private key.

    Args:
        file: With the private key.

    Returns:
        Type and data, or None when the file is no key that can be read.
    """
    try:
        key = load_ssh_private_key(file.read_bytes(), password=None)
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm):
        return None
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def public_halves(ec2: Any, names: Sequence[str]) -> dict[str, str]:
    """Ask for the public halves of key pairs.

    Args:
        ec2: A boto3 EC2 client.
        names: Of the key pairs.

    Returns:
        Type and data by name; without those that AWS does not know, or no longer.
    """
    filters = [{"Name": "key-name", "Values": list(names)}]
    pairs = ec2.describe_key_pairs(Filters=filters, IncludePublicKey=True)["KeyPairs"]
    return {one["KeyName"]: " ".join(one["PublicKey"].split()[:2]) for one in pairs if one.get("PublicKey")}
