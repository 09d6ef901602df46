"""Which call of which AWS service an HTTP request is."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import botocore.session
from botocore.exceptions import UnknownServiceError

CREDENTIAL_SCOPE = re.compile(r"Credential=(?P<user>[^/]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")

READING = ("Describe", "Get", "List", "Lookup", "Search", "Head", "Test")
"""How the names of calls begin that change nothing."""

UNKNOWN = "Unknown"

LARGEST_BODY = 64 * 1024 * 1024

MODEL_NAMES = {"elasticloadbalancing": "elbv2", "monitoring": "cloudwatch", "email": "ses"}
"""botocore's name of a service whose signature has another one."""


IAM_NAMES = {"tagging": "tag"}
"""What IAM calls a service whose signature has another name."""


TAGGED_BY = {"iam:CreateRole": "iam:TagRole", "iam:CreateInstanceProfile": "iam:TagInstanceProfile"}
"""What IAM asks for beside a call that brings tags along."""


@dataclass(frozen=True)
class Call:
    """One call of the AWS API.

    Attributes:
        service: As in an IAM action, for example ``ec2``.
        action: For example ``RunInstances``.
        parameters: By name, each with its first value; those of a path or of a JSON body are as in the API's model.
        user: Access key that signed it.
        json: Whether it speaks JSON, and wants to be answered so.
    """

    service: str
    action: str
    region: str
    parameters: dict[str, str]
    user: str = UNKNOWN
    json: bool = False

    @property
    def name(self) -> str:
        """Service and action, as in an IAM policy."""
        return f"{IAM_NAMES.get(self.service, self.service)}:{self.action}"

    def permissions(self) -> list[str]:
        """List the IAM actions that AWS asks for: the call itself, and what its parameters need besides."""
        needed = [self.name]
        if self.service == "ec2" and any(name.startswith("TagSpecification") for name in self.parameters):
            needed.append("ec2:CreateTags")
        passes_role = any(name.startswith("IamInstanceProfile.") for name in self.parameters)
        if passes_role or self.name == "iam:AddRoleToInstanceProfile":
            needed.append("iam:PassRole")
        if self.name in TAGGED_BY and any(name.startswith("Tags.") for name in self.parameters):
            needed.append(TAGGED_BY[self.name])
        return list(dict.fromkeys(needed))

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return not self.action.startswith(READING)


def read_call(environ: dict[str, Any]) -> Call:
    """Find out which call a WSGI request is; its body stays readable.

    Service or action are ``Unknown`` when the request does not tell.
    """
    length = min(int(environ.get("CONTENT_LENGTH") or 0), LARGEST_BODY)
    body = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    scope = CREDENTIAL_SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    service, region, user = (scope[one] if scope else UNKNOWN for one in ("service", "region", "user"))
    parameters = _first(environ.get("QUERY_STRING", ""))
    target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    if target:
        parameters |= _fields(body)
    elif "urlencoded" in environ.get("CONTENT_TYPE", ""):
        parameters |= _first(body.decode(errors="replace"))
    action = parameters.get("Action") or target
    if not action and service != UNKNOWN:
        model = MODEL_NAMES.get(service, service)
        action, named = _by_path(model, environ["REQUEST_METHOD"], environ["PATH_INFO"])
        parameters |= named
    return Call(service, action or UNKNOWN, region, parameters, user, bool(target))


def _fields(body: bytes) -> dict[str, str]:
    try:
        told = json.loads(body or b"{}")
    except ValueError:
        return {}
    return {name: value for name, value in told.items() if isinstance(value, str)}


def _first(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}


@lru_cache
def _routes(service: str) -> tuple[tuple[str, re.Pattern[str], str], ...]:
    """List method, path and name of a REST service's calls, the most particular path first."""
    try:
        model = botocore.session.get_session().get_service_model(service)
    except UnknownServiceError:
        return ()
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path = str(http.get("requestUri", "/")).partition("?")[0].rstrip("/")
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
        pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.sub(r"\\\{[^}]*\+\\\}", ".+", pattern))
        routes.append((path.count("{"), -len(path), str(http.get("method")), re.compile(pattern + "/?"), name))
    return tuple((method, pattern, name) for _, _, method, pattern, name in sorted(routes, key=lambda one: one[:2]))


def _by_path(service: str, method: str, path: str) -> tuple[str, dict[str, str]]:
    """Find a REST call and the parameters that its path names."""
    for verb, known, name in _routes(service):
        found = known.fullmatch(path) if verb == method else None
        if found:
            return name, found.groupdict()
    return UNKNOWN, {}
