"""An identity-based IAM policy, evaluated as AWS does.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from rehearsal.errors import RehearsalError

KNOWN = {"Sid", "Effect", "Action", "Resource", "Condition"}
"""Elements of a statement that are evaluated here; others are refused."""

OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringLike": fnmatchcase,
    "ArnEquals": fnmatchcase,
    "ArnLike": fnmatchcase,
}
"""Condition operators; each holds when the key is there and one of the values fits."""


@dataclass(frozen=True)
class Ask:
    """One action on one resource, which a call needs to be allowed.

    Attributes:
        action: Such as ``ec2:RunInstances``.
        resource: Its ARN; ``*`` when the action knows no resources.
        context: Values of condition keys.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)


class Policy:
    """What a user may do."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Read a policy document; an empty one allows everything.

        Raises:
            RehearsalError: The document uses what is not evaluated here.
        """
        statements = document.get("Statement", [])
        self._statements: list[Mapping[str, Any]] = [statements] if isinstance(statements, dict) else list(statements)
        self._everything = not document
        for one in self._statements:
            unknown = [*(set(one) - KNOWN), *(set(one.get("Condition", {})) - set(OPERATORS))]
            if unknown or one.get("Effect") not in {"Allow", "Deny"}:
                named = one.get("Sid", one)
                raise RehearsalError(f"policy statement {named}: cannot evaluate {', '.join(unknown) or 'its Effect'}")

    def allows(self, ask: Ask) -> bool:
        """Tell whether something may be done: some statement allows it and none denies it."""
        effects = {one["Effect"] for one in self._statements if _fits(one, ask)}
        return self._everything or effects == {"Allow"}


ANYTHING = Policy({})
"""What the root user of an account has."""


def _fits(statement: Mapping[str, Any], ask: Ask) -> bool:
    # AWS compares the names of actions without regard to case.
    action = any(fnmatchcase(ask.action.lower(), one.lower()) for one in _listed(statement.get("Action")))
    resource = any(_covers(one, ask.resource) for one in _listed(statement.get("Resource")))
    return (
        action
        and resource
        and all(_holds(operator, keys, ask.context) for operator, keys in statement.get("Condition", {}).items())
    )


def _covers(pattern: str, arn: str) -> bool:
    """Compare ARNs; a wildcard of theirs may stand for colons and slashes, but has no brackets."""
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), arn))


def _holds(operator: str, keys: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    return all(
        key in context and any(OPERATORS[operator](context[key], value) for value in _listed(wanted))
        for key, wanted in keys.items()
    )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
