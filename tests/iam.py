"""The policy in docs/iam.md, compared with the calls that the rehearsal wrote down.

By hand: python -m tests.iam CALLS
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rehearsal import CREDENTIAL
from tests.project import ROOT

FREE = {"sts:GetCallerIdentity"}
"""Allowed to everybody: https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html"""

LARGEST = 6144
"""Characters of a managed policy, white space not counted:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""


def read_policy(page: Path = ROOT / "docs/iam.md") -> dict[str, Any]:
    """Read the policy document from the one JSON block of a page."""
    found = re.findall(r"```json\n(.*?)\n```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1, f"{page} must show exactly one policy"
    policy: dict[str, Any] = json.loads(found[0])
    return policy


def allowed(policy: dict[str, Any], without: Collection[str] = ()) -> set[str]:
    """List the actions, such as ``ec2:RunInstances``, that a policy allows.

    ``without`` holds Sids of statements, and actions, to leave out.
    """
    listed = {action for one in policy["Statement"] if one["Sid"] not in without for action in one["Action"]}
    return listed - {*without}


def needed(calls: Path) -> set[str]:
    """List the permissions, such as ``ec2:RunInstances``, that the playbooks' user needed for its calls.

    ``calls`` is the rehearsal's calls.jsonl. What AWS allows to everybody is left out.
    """
    lines = [json.loads(line) for line in calls.read_text(encoding="utf-8").splitlines()]
    assert lines, f"{calls} is empty"
    return {action for line in lines if line["user"] == CREDENTIAL for action in line["needs"]} - FREE


def differences(calls: Path, policy: dict[str, Any], unused: Collection[str] = ()) -> list[str]:
    """Write a sentence for each action that was called and is not allowed, or is allowed and was not called.

    Args:
        calls: The rehearsal's calls.jsonl, after a whole life of the instances.
        unused: Sids of statements, and actions, that this life had no use for.
    """
    wanted = needed(calls)
    return [
        *(f"{action} was called and is not allowed" for action in sorted(wanted - allowed(policy))),
        *(f"{action} is allowed and was not called" for action in sorted(allowed(policy, unused) - wanted)),
    ]


if __name__ == "__main__":
    found = differences(Path(sys.argv[1]), read_policy(), sys.argv[2:])
    print("\n".join(found) or "every call is allowed, and everything that is allowed was called")
    sys.exit(bool(found))
