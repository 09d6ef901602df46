"""Ansible module: settings of EC2 instances that amazon.aws.ec2_instance sets at launch but never changes after it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError

BURSTABLE = re.compile(r"t\d")
"""Families with CPU credits: t2, t3, t3a, t4g."""

Instance = Mapping[str, Any]
"""An instance as EC2 describes it."""


class Settings:
    """Changes settings that are not as wanted, and notes each change; with ``check`` it notes only."""

    def __init__(self, client: Any, check: bool) -> None:
        """Begin with nothing changed; ``client`` is a boto3 EC2 client."""
        self.client = client
        self.check = check
        self.changes: list[tuple[str, str, str]] = []
        """Instance and what is set, its value before and after."""

    def _note(self, instance: str, what: str, before: str, after: str) -> bool:
        self.changes.append((f"{instance}: {what}", before, after))
        return not self.check

    def credits(self, instances: Iterable[Instance], wanted: str) -> None:
        """Set the credit mode of burstable instances to ``standard`` or ``unlimited``."""
        burstable = [one["InstanceId"] for one in instances if BURSTABLE.match(one["InstanceType"])]
        if not burstable:
            return
        answer = self.client.describe_instance_credit_specifications(InstanceIds=burstable)
        for one in answer["InstanceCreditSpecifications"]:
            if one["CpuCredits"] != wanted and self._note(one["InstanceId"], "credits", one["CpuCredits"], wanted):
                wish = {"InstanceId": one["InstanceId"], "CpuCredits": wanted}
                self.client.modify_instance_credit_specification(InstanceCreditSpecifications=[wish])

    def monitoring(self, instances: Iterable[Instance], detailed: bool) -> None:
        """Switch detailed monitoring on or off."""
        change = self.client.monitor_instances if detailed else self.client.unmonitor_instances
        accepted = {"enabled", "pending"} if detailed else {"disabled", "disabling"}
        for one in instances:
            state = one["Monitoring"]["State"]
            after = "enabled" if detailed else "disabled"
            if state not in accepted and self._note(one["InstanceId"], "detailed monitoring", state, after):
                change(InstanceIds=[one["InstanceId"]])

    def no_profile(self, instances: Iterable[Instance]) -> None:
        """Take instance profiles away."""
        for one in (one for one in instances if one.get("IamInstanceProfile")):
            if self._note(one["InstanceId"], "instance profile", one["IamInstanceProfile"]["Arn"], ""):
                which = [{"Name": "instance-id", "Values": [one["InstanceId"]]}]
                found = self.client.describe_iam_instance_profile_associations(Filters=which)
                for association in found["IamInstanceProfileAssociations"]:
                    self.client.disassociate_iam_instance_profile(AssociationId=association["AssociationId"])


def apply(client: Any, wanted: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Bring instances to what the module's parameters say, and give Ansible's result."""
    reservations = client.describe_instances(InstanceIds=wanted["instance_ids"])["Reservations"]
    instances = [one for reservation in reservations for one in reservation["Instances"]]
    settings = Settings(client, check)
    settings.credits(instances, wanted["credits"])
    settings.monitoring(instances, wanted["detailed_monitoring"])
    if not wanted["keep_profile"]:
        settings.no_profile(instances)
    return {
        "changed": bool(settings.changes),
        "changes": [f"{what}: {before} -> {after}" for what, before, after in settings.changes],
        "diff": {
            "before": "".join(f"{what}: {before}\n" for what, before, _ in settings.changes),
            "after": "".join(f"{what}: {after}\n" for what, _, after in settings.changes),
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={
            "instance_ids": {"type": "list", "elements": "str", "required": True},
            "credits": {"type": "str", "choices": ["standard", "unlimited"], "required": True},
            "detailed_monitoring": {"type": "bool", "required": True},
            # Whether an instance may keep its instance profile; else it is taken away.
            "keep_profile": {"type": "bool", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**apply(module.client("ec2"), module.params, module.check_mode))
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="The settings of the instances could not be changed")


if __name__ == "__main__":
    main()
