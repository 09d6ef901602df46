"""Finds out why an instance does not answer: because of the security group, the key, or its boot.

``ec2`` is a boto3 EC2 client in every function, and ``instance`` is what ``describe`` returns.
"""

from __future__ import annotations

import errno
import ipaddress
import shlex
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from preflight.account import REHEARSAL_ACCOUNT
from preflight.cost import hourly, read_prices
from preflight.keys import public_half, public_halves
from preflight.own_address import ME, UnknownAddressError, own_address

SSH_PORT = 22
PROBE_S = 5
CONSOLE_LINES = 15

NEEDED = ("ansible_host", "ansible_ssh_common_args", "ansible_ssh_private_key_file", "ansible_user", "ec2_region")
"""Variables of a host that say how Ansible logs in, and where the instance is."""

DROPPED = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""Errors where a security group throws away what it does not allow: nothing comes back, or a router gives up."""


@dataclass(frozen=True)
class Login:
    """How Ansible logs in to an instance, with a private key in a file and further arguments of ssh."""

    address: str
    user: str
    key: str
    options: Sequence[str] = ()

    def command(self) -> list[str]:
        """Give the command that logs in and does nothing."""
        fixed = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={PROBE_S}", "-o", "ControlPath=none", "-i", self.key]
        return ["ssh", *self.options, *fixed, f"{self.user}@{self.address}", "true"]


def probe(address: str, port: int = SSH_PORT) -> str:
    """Try to connect to a TCP port, which is ``open``, ``closed`` (somebody refuses) or ``silent`` (nobody answers)."""
    try:
        socket.create_connection((address, port), timeout=PROBE_S).close()
    except TimeoutError:
        return "silent"
    except OSError as error:
        return "silent" if error.errno in DROPPED else "closed"
    return "open"


def describe(ec2: Any, instance_id: str) -> dict[str, Any]:
    """Describe an instance as DescribeInstances does, with the account that owns it as ``OwnerId``."""
    reservation = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]
    return {**reservation["Instances"][0], "OwnerId": reservation["OwnerId"]}


def ssh_rules(ec2: Any, instance: dict[str, Any]) -> dict[str, list[str]]:
    """List the CIDR blocks that may reach SSH, by name of the security group."""
    groups = ec2.describe_security_groups(GroupIds=[group["GroupId"] for group in instance["SecurityGroups"]])
    return {
        group["GroupName"]: [
            block["CidrIp"]
            for rule in group["IpPermissions"]
            if rule["IpProtocol"] == "-1" or rule.get("FromPort", 0) <= SSH_PORT <= rule.get("ToPort", 0)
            for block in rule["IpRanges"]
        ]
        for group in groups["SecurityGroups"]
    }


def boot_report(ec2: Any, instance: dict[str, Any]) -> str:
    """Say how far an instance came: its state, the reason where there is one, and the last lines of its console."""
    state = instance["State"]["Name"]
    reason = instance.get("StateReason", {}).get("Message") or instance.get("StateTransitionReason")
    told = f"{instance['InstanceId']} is {state}{f' ({reason})' if reason else ''}"
    try:
        output = ec2.get_console_output(InstanceId=instance["InstanceId"]).get("Output", "")
    except (BotoCoreError, ClientError) as error:
        return f"{told}; its console cannot be read: {error}"
    lines = [line.rstrip() for line in output.splitlines() if line.strip()][-CONSOLE_LINES:]
    if not lines:
        return f"{told}; its console shows nothing yet, which can take AWS some minutes"
    return "\n".join([f"{told}; the last lines of its console:", *(f"    {line}" for line in lines)])


def closed_group(ec2: Any, instance: dict[str, Any], login: Login) -> str:
    """Say why nothing comes back from an instance that runs; name the rules and the address that they should cover."""
    rules = ssh_rules(ec2, instance)
    listed = "; ".join(f"{name}: {', '.join(blocks) or 'nobody'}" for name, blocks in sorted(rules.items()))
    silent = f"Port {SSH_PORT} of {login.address} does not answer at all"
    try:
        seen = own_address()
    except UnknownAddressError as error:
        return f"SECURITY GROUP or network: {silent}. SSH is open to {listed}; whether that is this machine: {error}"
    covered = [
        ipaddress.ip_address(seen) in ipaddress.ip_network(block) for blocks in rules.values() for block in blocks
    ]
    if any(covered):
        return (
            f"BOOT or network: {silent}, although the security group lets {seen} in ({listed}). Either something "
            f"between here and there holds it back, or the machine hangs: {boot_report(ec2, instance)}"
        )
    return (
        f"SECURITY GROUP: {silent}. SSH is open to {listed}, but AWS sees this machine at {seen}. Run "
        f"playbooks/provision.yml with {ME} or {seen}/32 in ec2_ssh_cidrs, which lets it in; then run the same again"
    )


def refused_login(ec2: Any, instance: dict[str, Any], login: Login, said: str) -> str:
    """Say why ssh connects and does not get in; ``said`` is what ssh wrote."""
    last = (said.strip().splitlines() or ["nothing"])[-1]
    pair = instance.get("KeyName", "none")
    own = public_half(Path(login.key))
    # Debian 13's sshd resets further connections from where logins failed, so its words alone do not tell.
    if "Permission denied" in said or public_halves(ec2, [pair]).get(pair, own) != own:
        return (
            f"KEY: {login.address} answers, but does not let {login.user} in with {login.key} ({last}). The instance "
            f"was made with the key pair {pair}: allowed is the file with its private half in ec2_private_key_file"
        )
    if "verification failed" in said:
        return (
            f"KEY: {login.address} does not show the host key that is known for {instance['InstanceId']} ({last}). "
            f"When the instance was made anew, remove its line from {login.key}.known_hosts"
        )
    return f"BOOT: port {SSH_PORT} of {login.address} is open, but ssh says: {last}. {boot_report(ec2, instance)}"


def expense(ec2: Any, instance: dict[str, Any]) -> str:
    """Say what an instance costs that runs for nothing, and how to remove it; empty for one of the rehearsal."""
    if instance["OwnerId"] == REHEARSAL_ACCOUNT:
        return ""
    prices = read_prices()
    price = hourly(prices, ec2.meta.region_name, instance["InstanceType"])
    costs = f"about {price + prices['address']['price']:.3f} USD an hour" if price else "money"
    return f"\n{instance['InstanceId']} costs {costs} until playbooks/destroy.yml removes it"


def explain_host(instance_id: str, variables: Mapping[str, str]) -> str:
    """Find out why Ansible does not reach an instance; ``variables`` are those that ``NEEDED`` lists.

    Where the reason is found, the answer begins with SECURITY GROUP, KEY or BOOT.
    """
    address, options, key, user, region = (variables[name] for name in NEEDED)
    return explain(
        boto3.client("ec2", region_name=region), instance_id, Login(address, user, key, shlex.split(options))
    )


def explain(ec2: Any, instance_id: str, login: Login) -> str:
    """Find out why Ansible does not reach an instance, with the client and the login that are given."""
    try:
        return _explain(ec2, describe(ec2, instance_id), login)
    except (BotoCoreError, ClientError, LookupError) as error:
        return f"{instance_id} does not answer, and AWS does not say more about it: {error}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"{instance_id} at {login.address} does not answer: {error}"


def _explain(ec2: Any, instance: dict[str, Any], login: Login) -> str:
    if instance["State"]["Name"] != "running":
        return f"BOOT: {boot_report(ec2, instance)}"
    match probe(login.address):
        case "silent":
            reason = closed_group(ec2, instance, login)
        case "closed":
            said = f"BOOT: {login.address} answers, but nobody listens on port {SSH_PORT} (yet)."
            reason = f"{said} {boot_report(ec2, instance)}"
        case _:
            tried = subprocess.run(login.command(), capture_output=True, text=True, check=False, timeout=6 * PROBE_S)
            if tried.returncode == 0:
                return f"{login.address} answers now: run the same again"
            reason = refused_login(ec2, instance, login, tried.stderr)
    return reason + expense(ec2, instance)
