"""Which actions on which resources a call needs, and AWS's answer when a policy does not allow one.

Resources and condition keys are those of AWS's Service Authorization Reference, for the calls that playbooks make:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from moto.ec2.models import EC2Backend, ec2_backends
from moto.iam.models import iam_backends

from rehearsal import ACCOUNT_ID, CREDENTIAL
from rehearsal.calls import Call
from rehearsal.policy import Ask

USER = f"arn:aws:iam::{ACCOUNT_ID}:user/{CREDENTIAL}"

FREE = {"sts:GetCallerIdentity"}
"""Allowed to everybody: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html"""

KINDS = {
    "ami": "image",
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "i": "instance",
    "igw": "internet-gateway",
    "rtb": "route-table",
    "sg": "security-group",
    "snap": "snapshot",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
}
"""Resource type of each kind of id."""

ID = re.compile(rf"({'|'.join(KINDS)})-[0-9a-f]+")

MADE = {
    "AllocateAddress": ("elastic-ip",),
    "CreateInternetGateway": ("internet-gateway",),
    "CreateRouteTable": ("route-table",),
    "CreateSecurityGroup": ("security-group",),
    "CreateSnapshot": ("snapshot",),
    "CreateSubnet": ("subnet",),
    "CreateVpc": ("vpc",),
    "ImportKeyPair": ("key-pair",),
    "RunInstances": ("instance", "network-interface", "volume"),
}
"""What a call makes; its ARN ends in ``*`` because nobody knows the id yet."""

MENTIONED = re.compile(r"IpPermissions\.|Filter\.|UserData")
"""Parameters that may name resources without doing anything to them."""


def asks(call: Call) -> Iterator[Ask]:
    """List what a call needs to be allowed."""
    for action in call.permissions():
        match action.partition(":")[0]:
            case _ if action in FREE:
                continue
            case _ if action == "iam:PassRole":
                yield from _passed_roles(call)
            case "ec2" if action == "ec2:CreateTags" != call.name:
                yield from _tags_of_new(call)
            case "ec2":
                yield from _of_ec2(call)
            case "iam":
                yield Ask(action, *_of_iam(call))
            case _:
                yield Ask(action, _of_others(call))


def refusal(call: Call, ask: Ask) -> tuple[int, str, str]:
    """Say that something is not allowed: https://github.com/aws/karpenter-provider-aws/issues/7370.

    Returns:
        HTTP status, error code and message.
    """
    where = re.sub(r"^arn:aws:iam::\d+:(role|instance-profile)/", r"\1 ", ask.resource).replace(
        "-profile ", " profile "
    )
    on = "" if ask.resource == "*" else f" on resource: {ask.resource if ask.action == 'iam:PassRole' else where}"
    why = f"because no identity-based policy allows the {ask.action} action"
    message = f"User: {USER} is not authorized to perform: {ask.action}{on} {why}"
    if call.service == "ec2":
        return 403, "UnauthorizedOperation", f"You are not authorized to perform this operation. {message}"
    return (400, "AccessDeniedException", message) if call.json else (403, "AccessDenied", message)


def _backend(call: Call) -> EC2Backend:
    return ec2_backends[ACCOUNT_ID][call.region]


def _arn(call: Call, kind: str, name: str) -> str:
    account = "" if kind in {"image", "snapshot"} else ACCOUNT_ID
    return f"arn:aws:ec2:{call.region}:{account}:{kind}/{name}"


def _of_ec2(call: Call) -> Iterator[Ask]:
    found = []
    if not call.action.startswith("Describe"):
        found += [Ask(call.name, _arn(call, kind, "*"), _asked_tags(call, kind)) for kind in MADE.get(call.action, ())]
        found += list(_existing(call))
    yield from found or [Ask(call.name)]


def _existing(call: Call) -> Iterator[Ask]:
    """List the resources that a call names, with their tags; moto refuses what does not exist."""
    backend = _backend(call)
    ids = [value for name, value in call.parameters.items() if not MENTIONED.match(name)]
    given = _numbered_tags(call, "Tag") if call.action == "CreateTags" else {}
    for identity in dict.fromkeys(one for value in ids for one in _resolved(backend, value)):
        kind = KINDS[identity.partition("-")[0]]
        yield Ask(call.name, _arn(call, kind, identity), _tags_of(backend, identity) | given)
    key = backend.key_pairs.get(call.parameters.get("KeyName", ""))
    if key is not None and call.action != "ImportKeyPair":
        yield Ask(call.name, _arn(call, "key-pair", key.key_name), _tags_of(backend, key.id))


def _tags_of(backend: EC2Backend, identity: str) -> dict[str, str]:
    return {f"aws:ResourceTag/{key}": value for key, value in backend.tags.get(identity, {}).items()}


def _resolved(backend: EC2Backend, value: str) -> list[str]:
    """List the ids that a value means: its own, or those behind an association or an Elastic IP."""
    if ID.fullmatch(value):
        return [value]
    if value.startswith("iip-assoc-"):
        known = backend.iam_instance_profile_associations.values()
        return [one.instance_id for one in known if one.association_id == value]
    if value.startswith("rtbassoc-"):
        return [table.id for table in backend.route_tables.values() if value in table.all_associations_ids]
    return [
        one
        for address in backend.addresses
        if value in {address.association_id, address.public_ip}
        for one in (address.allocation_id, getattr(address.eni, "id", None))
        if one
    ]


def _tags_of_new(call: Call) -> Iterator[Ask]:
    kinds = [
        value for name, value in call.parameters.items() if re.fullmatch(r"TagSpecification\.\d+\.ResourceType", name)
    ]
    for kind in kinds:
        context = {"ec2:CreateAction": call.action} | _asked_tags(call, kind)
        yield Ask("ec2:CreateTags", _arn(call, kind, "*"), context)


def _asked_tags(call: Call, kind: str) -> dict[str, str]:
    for name, value in call.parameters.items():
        specification = re.fullmatch(r"(TagSpecification\.\d+)\.ResourceType", name)
        if specification and value == kind:
            return _numbered_tags(call, f"{specification[1]}.Tag")
    return {}


def _numbered_tags(call: Call, prefix: str) -> dict[str, str]:
    """Read tags such as ``Tag.1.Key`` and ``Tag.1.Value``."""
    found = {}
    for name, key in call.parameters.items():
        if re.fullmatch(rf"{re.escape(prefix)}\.\d+\.Key", name):
            found[f"aws:RequestTag/{key}"] = call.parameters.get(f"{name.removesuffix('Key')}Value", "")
    return found


def _of_iam(call: Call) -> tuple[str, Mapping[str, str]]:
    context = _numbered_tags(call, "Tags.member")
    if "PolicyArn" in call.parameters:
        context["iam:PolicyARN"] = call.parameters["PolicyArn"]
    for kind, parameter in (("instance-profile", "InstanceProfileName"), ("role", "RoleName")):
        if parameter in call.parameters:
            return f"arn:aws:iam::{ACCOUNT_ID}:{kind}/{call.parameters[parameter]}", context
    return "*", context


def _passed_roles(call: Call) -> Iterator[Ask]:
    """List the roles that an instance gets: by name, or those of its profile."""
    names = [call.parameters.get("RoleName", "")]
    for profile in iam_backends[ACCOUNT_ID]["aws"].instance_profiles.values():
        if call.service == "ec2" and {profile.name, profile.arn} & set(call.parameters.values()):
            names += [role.name for role in profile.roles]
    for name in filter(None, names):
        role = f"arn:aws:iam::{ACCOUNT_ID}:role/{name}"
        yield Ask("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})


def _of_others(call: Call) -> str:
    if call.name in {"route53:ChangeResourceRecordSets", "route53:ListResourceRecordSets", "route53:GetHostedZone"}:
        return f"arn:aws:route53:::hostedzone/{call.parameters.get('HostedZoneId') or call.parameters.get('Id')}"
    return "*"
