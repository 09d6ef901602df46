"""Finds out whom the AWS clients of this process talk to: AWS, or the rehearsal on this machine."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import yaml
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    LoginError,
    NoCredentialsError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from preflight.refusals import ADVICE, CREDENTIALS, explained
from preflight.variables import Variables, did_you_mean

REHEARSAL_ACCOUNT = "000000000000"
"""No real account has this number."""

HOME_REGION = "us-east-1"
"""A region that every account has."""

WAYS_OUT = """\
  rehearsal (no account needed):  make rehearse, or if it runs: eval "$(python -m rehearsal env)"
  AWS:                            export AWS_PROFILE=..., or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"""

NO_PROFILE = "unset AWS_PROFILE AWS_DEFAULT_PROFILE"

REFUSALS = {
    "ExpiredToken": "The AWS credentials have expired",
    "ExpiredTokenException": "The AWS credentials have expired",
    "RequestExpired": "The AWS credentials have expired, or this machine's clock is wrong",
    "InvalidClientTokenId": "AWS does not know the access key, or no longer",
    "SignatureDoesNotMatch": "The secret key does not belong to the access key",
}
"""What the error codes of STS mean: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"""


class AccountError(Exception):
    """The clients do not talk to anybody, or not to the account or rehearsal that they should talk to."""


@dataclass(frozen=True)
class Identity:
    """The account and the identity that answer at an endpoint of EC2, and the region where instances are looked for."""

    account: str
    arn: str
    region: str
    endpoint: str

    @property
    def is_rehearsal(self) -> bool:
        """Whether this is the rehearsal, where nothing costs money."""
        return self.account == REHEARSAL_ACCOUNT

    def __str__(self) -> str:
        """Describe the account for a person."""
        if self.is_rehearsal:
            return f"REHEARSAL at {self.endpoint}, region {self.region}"
        return f"AWS account {self.account}, region {self.region} ({self.arn})"


def inventory_region(folder: Path) -> str:
    """Read the region where an inventory looks for instances.

    Raises:
        AccountError: The aws_ec2.yml in the inventory's folder cannot be read, or names no region.
    """
    file = folder / "aws_ec2.yml"
    try:
        return str(yaml.safe_load(file.read_text(encoding="utf-8"))["regions"][0])
    except (OSError, yaml.YAMLError, LookupError, TypeError) as error:
        raise AccountError(f"{file} names no region; it needs for example\nregions:\n  - eu-central-1") from error


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def mixture(account: str, endpoints: Iterable[str]) -> str | None:
    """Say in a sentence how the rehearsal and AWS are confused; None when it is clearly the one or the other."""
    listed = sorted(set(endpoints))
    here = [one for one in listed if _is_loopback(one)]
    shown = ", ".join(listed)
    if here and here != listed:
        return f"Some AWS services are asked on this machine and some elsewhere ({shown}): allowed is all or none"
    if here and account != REHEARSAL_ACCOUNT:
        return (
            f"{shown} is on this machine, but says that it is account {account}; the rehearsal is {REHEARSAL_ACCOUNT}"
        )
    if account == REHEARSAL_ACCOUNT and not here:
        return f"The account is {account}, which is the rehearsal's, but {shown} is not on this machine"
    return None


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


def _say(error: Exception) -> str:
    """Say in a sentence why AWS cannot be used with these credentials."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "AWS")
    match error:
        case NoCredentialsError():
            return "There are no AWS credentials and no rehearsal is chosen"
        case EndpointConnectionError():
            return f"Nobody answers at {str(error.kwargs['endpoint_url']).rstrip('/')} (AWS_ENDPOINT_URL)"
        case LoginError() | SSOTokenLoadError() | TokenRetrievalError() | UnauthorizedSSOTokenError():
            command = "aws login" if isinstance(error, LoginError) else "aws sso login"
            return f"The login has expired or cannot be read; log in again with: {command} ({error})"
        case ClientError() if (code := _code(error)) in REFUSALS:
            return f"{REFUSALS[code]} ({code})"
        case ValueError():
            return f"AWS_ENDPOINT_URL is {endpoint!r}: {error}"
    return f"AWS does not accept the credentials: {error}"


def misleading_environment() -> str | None:
    """Say where boto3, the inventory and Ansible's modules understand the environment differently, if anywhere."""
    elsewhere = os.environ.get("AWS_URL")
    if elsewhere and elsewhere != os.environ.get("AWS_ENDPOINT_URL"):
        # Ansible's modules would follow it, boto3 and the inventory would not.
        return f"AWS_URL is {elsewhere!r}: allowed is to unset it; AWS_ENDPOINT_URL chooses the endpoint"
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        # boto3 would take the key, and amazon.aws refuses to choose.
        both = f"AWS_PROFILE is {profile!r}, and AWS_ACCESS_KEY_ID is set as well: allowed is one"
        return f"{both}; for the key: {NO_PROFILE}" if profile else None
    try:
        settings = botocore.session.get_session().get_scoped_config()
    except BotoCoreError:
        # There is no such profile, which the first question to AWS reports.
        return None
    if {"mfa_serial", "role_arn"} <= settings.keys():
        # boto3 would ask for a code in the inventory and again in every module: no process keeps what another one got.
        name = profile or "default"
        return (
            f"The profile {name} has mfa_serial, so every process of Ansible would ask for a code. Ask once, in this "
            f'shell:\n  eval "$(aws configure export-credentials --profile {name} --format env)"; {NO_PROFILE}'
        )
    return None


def identify(region: str) -> Identity:
    """Ask which account answers, and check that instances can be listed in the region where they are looked for.

    Raises:
        AccountError: The environment misleads, nobody answers, the credentials are refused, the region cannot be used,
            the rehearsal and AWS are confused, or instances cannot be listed.
    """
    if misleading := misleading_environment():
        raise AccountError(misleading)
    try:
        sts = boto3.client("sts", region_name=HOME_REGION)
        ec2 = boto3.client("ec2", region_name=HOME_REGION)
        caller = sts.get_caller_identity()
    except (BotoCoreError, ClientError, ValueError) as error:
        if isinstance(error, ClientError) and CREDENTIALS not in ADVICE.get(_code(error), CREDENTIALS):
            raise AccountError(f"AWS does not say whose credentials these are: {explained(error)}") from error
        raise AccountError(f"{_say(error)}. Two ways on:\n{WAYS_OUT}") from error
    confused = mixture(caller["Account"], (sts.meta.endpoint_url, ec2.meta.endpoint_url))
    problem = confused or unusable_region(ec2, region, caller["Account"])
    if problem:
        raise AccountError(problem)
    try:
        # The inventory asks the same next, and its error would be buried under the messages of three parsers.
        boto3.client("ec2", region_name=region).describe_instances(MaxResults=5)
    except (BotoCoreError, ClientError) as error:
        raise AccountError(f"The instances in {region} cannot be listed: {explained(error)}") from error
    return Identity(caller["Account"], caller["Arn"], region, ec2.meta.endpoint_url)


def unusable_region(ec2: Any, region: str, account: str) -> str | None:
    """Say in a sentence why instances cannot be in a region; None when they can or AWS does not list its regions."""
    try:
        regions = ec2.describe_regions(AllRegions=True)["Regions"]
    except (BotoCoreError, ClientError):
        # Without this permission the region's own answers have to do.
        return None
    known = {one["RegionName"]: one["OptInStatus"] for one in regions}
    usable = sorted(name for name, status in known.items() if status != "not-opted-in")
    if region not in known:
        return (
            f"The region is {region!r} (regions in aws_ec2.yml): AWS has no such region{did_you_mean(region, known)}\n"
            f"Allowed are {', '.join(usable)}"
        )
    if region not in usable:
        return (
            f"The region is {region!r} (regions in aws_ec2.yml), which account {account} has not enabled: "
            f"enable it under Account, AWS Regions in the AWS console, or choose one of {', '.join(usable)}"
        )
    return None


def other_region(variables: Variables, who: Identity) -> Iterator[str]:
    """Yield a sentence when instances would be made in another region than the one where they are looked for."""
    if variables["ec2_region"] != who.region:
        yield (
            f"ec2_region is {variables['ec2_region']!r}, but the inventory looks for instances in {who.region}: "
            "allowed is that one; both change with regions in aws_ec2.yml"
        )
