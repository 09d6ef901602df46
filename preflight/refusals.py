"""Finds the errors of AWS in messages, and says what can be changed about each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name

from preflight.quotas import ADDRESSES, GROUPS, VCPUS, VPCS

ERROR = re.compile(
    r"An error occurred \((?P<code>[^)]+)\) when calling the (?P<operation>\w+) operation"
    r"(?: \(reached max retries: \d+\))?: (?P<words>.*)"
)
"""How botocore writes every error of AWS: ClientError in botocore/exceptions.py."""

WAITED = re.compile(r"Waiter (?P<waiter>\w+) failed: An error occurred \((?P<code>[^)]+)\)")
"""How a waiter of botocore writes it, which leaves the operation out: WaiterError in botocore/waiter.py."""

ENCODED = re.compile(r"\s*Encoded authorization failure message: \S+")
"""A part of a message, about a thousand characters, that only AWS can read."""

DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}

AGAIN = "nothing: somebody else, or AWS, stopped or terminated it meanwhile; run it again"
CREDENTIALS = "the credentials (AWS_PROFILE): log in again"
LATER = "nothing: AWS itself is in trouble, or asked too often; run it again in some minutes"
PLACE = "ec2_zones or ec2_instance_type, or try it again later"
REQUEST_QUOTA = "or ask AWS for a higher quota"

ADVICE = {
    "AddressLimitExceeded": f"ec2_count, or ec2_elastic_ip: false, {REQUEST_QUOTA} ({ADDRESSES.code})",
    "AuthFailure": CREDENTIALS,
    "Blocked": "nothing here: AWS has blocked the account; only its support can tell why",
    "ConcurrentSnapshotLimitExceeded": "nothing: other snapshots are still being made; run it again in some minutes",
    "DependencyViolation": "nothing here: something that these playbooks did not make still uses it; remove that first",
    "ExpiredToken": CREDENTIALS,
    "InstanceLimitExceeded": f"ec2_count or ec2_instance_type, {REQUEST_QUOTA} ({VCPUS.code})",
    "IncorrectInstanceState": AGAIN,
    "IncorrectState": AGAIN,
    "InsufficientAddressCapacity": "ec2_elastic_ip: false, or try it again later",
    "InsufficientFreeAddressesInSubnet": "ec2_zones, or ec2_vpc_cidr for a larger network of the project's own",
    "InsufficientInstanceCapacity": PLACE,
    "InternalError": LATER,
    "InternetGatewayLimitExceeded": f"ec2_vpc_cidr: empty means the default VPC, {REQUEST_QUOTA} (L-A4707A72)",
    "InvalidAMIID.NotFound": "ec2_ami_id",
    "InvalidAMIID.Unavailable": "ec2_ami_id",
    "InvalidClientTokenId": CREDENTIALS,
    "InvalidInstanceID": AGAIN,
    "InvalidInstanceID.NotFound": AGAIN,
    "InvalidInstanceType": "ec2_instance_type",
    "InvalidKey.Format": "ec2_private_key_file",
    "InvalidSubnet.Conflict": "ec2_vpc_cidr",
    "InvalidSubnet.Range": "ec2_vpc_cidr",
    "InvalidVpc.Range": "ec2_vpc_cidr",
    "NoSuchHostedZone": "ec2_dns_zone",
    "OptInRequired": "nothing here: the account is not signed up for it yet; AWS's console shows what is missing",
    "PendingVerification": "nothing: AWS still verifies the new account, which can take four hours; run it again then",
    "RequestExpired": f"the clock of this machine, or {CREDENTIALS}",
    "RequestLimitExceeded": LATER,
    "RulesPerSecurityGroupLimitExceeded": f"ec2_ssh_cidrs or ec2_public_ports, {REQUEST_QUOTA} (L-0EA8095F)",
    "SecurityGroupLimitExceeded": "nothing here: remove security groups that nobody uses, "
    f"{REQUEST_QUOTA} ({GROUPS.code})",
    "ServiceUnavailable": LATER,
    "SignatureDoesNotMatch": CREDENTIALS,
    "Throttling": LATER,
    "Unavailable": LATER,
    "Unsupported": "ec2_instance_type or ec2_zones: this zone does not offer the type",
    "VcpuLimitExceeded": f"ec2_count or ec2_instance_type, {REQUEST_QUOTA} ({VCPUS.code})",
    "VolumeLimitExceeded": f"ec2_volume_size or ec2_count, {REQUEST_QUOTA} (L-7A658B76)",
    "VpcLimitExceeded": f"ec2_vpc_cidr: empty means the default VPC, {REQUEST_QUOTA} ({VPCS.code})",
}
"""What to change, by error code: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"""

IN_WORDS = {
    "Free Tier": "ec2_instance_type: on its plan the account launches only types that are eligible for the free tier",
    "rchitecture": "ec2_instance_type, or ec2_ami_name or ec2_ami_id: image and type are of two architectures",
    "IAM Instance Profile": "nothing: IAM takes some seconds to make a new profile known; run it again",
    "CIDR": "ec2_ssh_cidrs, or ec2_vpc_cidr",
}
"""What to change, by words of the message, where AWS has one code for many mistakes."""

UNKNOWN = "unknown to these playbooks: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"

SERVICES = {
    "ec2": re.compile("IamInstanceProfile"),
    "iam": re.compile("Role|InstanceProfile"),
    "route53": re.compile("HostedZone|ResourceRecord|GetChange"),
    "sts": re.compile("CallerIdentity"),
}
"""Which service an operation belongs to, by its name; EC2 has all others that the playbooks call."""


@dataclass(frozen=True)
class Refusal:
    """An error of AWS, such as VcpuLimitExceeded at the operation RunInstances, in AWS's words."""

    code: str
    operation: str
    words: str

    def __str__(self) -> str:
        """Write it as botocore does."""
        return f"An error occurred ({self.code}) when calling the {self.operation} operation: {self.words}"

    @property
    def action(self) -> str:
        """The IAM action that was not allowed: AWS's message names it, unless it is encoded as a whole."""
        named = re.search(r"perform: (\w+:\w+)", self.words)
        if named:
            return named[1]
        service = next((name for name, pattern in SERVICES.items() if pattern.search(self.operation)), "ec2")
        return f"{service}:{self.operation}"

    def advice(self) -> str:
        """Say what to change."""
        if self.code in DENIED:
            return f"the policy of these credentials, which does not allow {self.action}: docs/iam.md"
        by_words = (advice for words, advice in IN_WORDS.items() if words in self.words)
        return ADVICE.get(self.code) or next(by_words, UNKNOWN)


@cache
def _asked_by_waiters() -> dict[str, str]:
    """List the operations that botocore's waiters call, by the waiters' names; amazon.aws has these and more."""
    session = botocore.session.get_session()
    models = [session.get_waiter_model(service) for service in ("ec2", "iam", "route53")]
    return {xform_name(name): model.get_waiter(name).operation for model in models for name in model.waiter_names}


def _with_operation(text: str) -> str:
    """Write the error of a waiter as all other errors are written, with the operation."""

    def written(found: re.Match[str]) -> str:
        operation = _asked_by_waiters().get(found["waiter"], found["waiter"])
        return f"An error occurred ({found['code']}) when calling the {operation} operation"

    return WAITED.sub(written, text)


def find_refusal(text: str) -> Refusal | None:
    """Find the first error of AWS in a message or a traceback."""
    found = ERROR.search(_with_operation(text))
    return Refusal(found["code"], found["operation"], found["words"].strip()) if found else None


def explained(error: Exception) -> str:
    """Give what AWS said, and what to change; any other error as it is."""
    refusal = find_refusal(str(error))
    return f"{refusal}\nTo change: {refusal.advice()}" if refusal else str(error)


def messages(result: Mapping[str, Any]) -> Iterator[str]:
    """Give what a failed task said, item by item where it had a loop."""
    failed = [one for one in result.get("results", ()) if one.get("failed")]
    for one in failed or [result]:
        vain = f"AWS was asked {one.get('attempts', 1)} times, and what was waited for did not come"
        yield ENCODED.sub("", _with_operation(str(one.get("msg", vain))))
