"""Gives answers that are not up to date yet, on request, as AWS does for a while after some calls.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_ip_addresses import ElasticAddress
from moto.ec2.models.instances import Reservation
from moto.ec2.responses.instances import InstanceResponse

from rehearsal.faults import Faults

Original = Callable[..., Any]


class StaleHooks:
    """Hooks that hide something for a while after it was made."""

    def __init__(self, faults: Faults) -> None:
        """Start with everything up to date."""
        self._faults = faults
        self._until: dict[str, float] = {}

    def _seconds(self, name: str) -> float:
        """Take a fault for a call; 0 when its effect is seen at once."""
        fault = self._faults.take("stale", lambda one: fnmatchcase(name, one.action))
        return fault.seconds if fault else 0

    def _hide(self, name: str, *things: str) -> None:
        seconds = self._seconds(name)
        self._until |= {thing: time.monotonic() + seconds for thing in things if seconds}

    def _hidden(self, thing: str) -> bool:
        return self._until.get(thing, 0) > time.monotonic()

    def run_instances(self, original: Original, response: InstanceResponse) -> Any:
        """Launch instances that cannot be found at first, unless their profile has no role yet."""
        for name in ("IamInstanceProfile.Name", "IamInstanceProfile.Arn"):
            self._require_role(*response.data.get(name, []))
        answer = original(response)
        self._hide("ec2:RunInstances", *(one.id for one in answer.result.instances))
        return answer

    def reservations(self, original: Original, backend: EC2Backend, *args: Any, **kwargs: Any) -> list[Reservation]:
        """List instances, without those that nobody finds yet."""
        found: list[Reservation] = original(backend, *args, **kwargs)
        for reservation in found:  # copies
            reservation.instances = [one for one in reservation.instances if not self._hidden(one.id)]
        return [one for one in found if one.instances]

    def associate_address(self, original: Original, backend: EC2Backend, *args: Any, **kwargs: Any) -> ElasticAddress:
        """Associate an Elastic IP; DescribeInstances may show the instance's earlier address for a while."""
        before = {id(nic): nic.public_ip for nic in backend.enis.values()}
        address: ElasticAddress = original(backend, *args, **kwargs)
        seconds = self._seconds("ec2:AssociateAddress")
        interface = address.eni
        if seconds and interface is not None:

            def show() -> None:
                if address.eni is interface:
                    interface.public_ip = address.public_ip

            interface.public_ip = before.get(id(interface))
            timer = threading.Timer(seconds, show)
            timer.daemon = True
            timer.start()
        return address

    def add_role(self, original: Original, backend: Any, profile_name: str, role_name: str) -> None:
        """Add a role to a profile, which EC2 may not know for a while."""
        original(backend, profile_name, role_name)
        self._hide("iam:AddRoleToInstanceProfile", profile_name)

    def associate_profile(
        self, original: Original, backend: EC2Backend, instance_id: str, *profile: Any, **named: Any
    ) -> Any:
        """Give an instance a profile that EC2 knows."""
        self._require_role(*filter(None, (*profile, *named.values())))
        return original(backend, instance_id, *profile, **named)

    def _require_role(self, *profiles: str) -> None:
        """Refuse profiles whose role is not known yet: https://github.com/hashicorp/packer/pull/9810."""
        for profile in profiles:
            if self._hidden(profile.rpartition("/")[2]):
                given, called = ("arn", "ARN") if profile.startswith("arn:") else ("name", "name")
                message = f"Value ({profile}) for parameter iamInstanceProfile.{given} is invalid. "
                raise EC2ClientError("InvalidParameterValue", f"{message}Invalid IAM Instance Profile {called}")
