"""Ansible action: refuses bad input before anything is touched, with every problem found in one message.

Argument specs check types when a role begins, which for the last role is after the instances exist, and they check
neither ranges nor misspelt names. This looks at everything first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleUndefinedVariable
from ansible.parsing.vault import EncryptedString, VaultSecretsContext
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Ansible imports a plugin by its path; the project's own packages are beside plugins/.
sys.path.append(str(Path(__file__).parents[2]))

from plugins.filter.service_secrets import as_secrets
from preflight.accessories import bad_accessories, scattered_data
from preflight.account import AccountError, identify, inventory_region, other_region
from preflight.certificate import bad_certificate, strange_names
from preflight.cloud import Cloud
from preflight.cost import estimate, read_prices
from preflight.ec2 import ec2_problems
from preflight.network import bad_public_ports, bad_ssh_cidrs, bad_vpc_cidr, closed_ports, unreachable_ssh
from preflight.receipts import proof
from preflight.routes import bad_routes
from preflight.secrets import changed_secrets, readable_secrets, readable_vaults, weak_passwords
from preflight.services import bad_services, scaled
from preflight.variables import (
    Variables,
    bad_names,
    bad_times,
    is_true,
    known_variables,
    misspelt,
    out_of_range,
    stack_defaults,
    verdict,
    wrong_types,
)
from preflight.web import bad_address, bad_host_names, bad_policy, body_without_room

PROJECT = Path(__file__).parents[2]

NO_FOLDER = (
    "The inventory (-i) is no folder with variables: allowed is inventories/aws, inventories/local, or one for "
    "machines of your own, such as inventories/own: docs/machines.md"
)


def _inventory_folder(task_vars: Variables) -> Path | None:
    """Find the inventory's folder by localhost or, where the inventory does not name that, by the machines."""
    hosts = [task_vars, *(task_vars["hostvars"][name] for name in task_vars["groups"].get("app", []))]
    return next((Path(host["inventory_dir"]) for host in hosts if host.get("inventory_dir")), None)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"scale"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the variables that the task sees; any problem fails the task, with one message for all."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        notes: list[str] = []
        inventory = _inventory_folder(task_vars or {})
        # Secrets come first, because filling in such a secret may fail with a message that shows a part of it.
        problems = list(self._changed_secrets(task_vars or {})) or (
            self._problems(inventory, task_vars or {}, notes) if inventory else [NO_FOLDER]
        )
        for note in () if problems else notes:
            Display().display(note, color="yellow" if note.startswith("UNPROVEN") else "cyan")
        return result | verdict(problems, "The input is in order.")

    def _changed_secrets(self, task_vars: Variables) -> Iterator[str]:
        entries = {
            "stack_services": task_vars.get("stack_services"),
            "accessory_services": as_secrets(task_vars.get("accessory_services")),
        }
        for name, of_name in entries.items():
            yield from changed_secrets(of_name, task_vars, self._templar.is_template, name)

    def _problems(self, inventory: Path, task_vars: Variables, notes: list[str]) -> list[str]:
        options = known_variables(PROJECT / "roles")
        ours = {name for of_role in options.values() for name in of_role}
        written = {name: task_vars[name] for name in ours & set(task_vars)}
        written_services = written.get("stack_services")
        readable = list(readable_secrets(written_services, self._is_hidden))
        if isinstance(written_services, list):
            written["stack_services"] = [self._with_secrets(service) for service in written_services]
        written_accessories = written.get("accessory_services")
        readable += readable_secrets(as_secrets(written_accessories), self._is_hidden, "accessory_services")
        if isinstance(written_accessories, list):
            written["accessory_services"] = [self._with_password(accessory) for accessory in written_accessories]
        variables = {name: self._templar.template(value) for name, value in written.items()}
        stack = stack_defaults(options) | variables
        if self._task.args.get("scale"):
            stack["stack_services"] = scaled(stack["stack_services"], task_vars)
        problems = [
            *misspelt(task_vars, options),
            *wrong_types(variables, options),
            *out_of_range(variables),
            *bad_times(variables),
            *bad_names(variables),
            *bad_ssh_cidrs(variables),
            *bad_vpc_cidr(variables),
            *bad_public_ports(variables),
            *bad_address(variables),
            *bad_host_names(variables),
            *bad_policy(variables),
            *bad_routes(stack["stack_services"], stack["stack_host_names"]),
            *bad_services(stack["stack_services"], PROJECT, options["stack"]["stack_services"]),
            *bad_accessories(
                stack["accessory_services"], stack["stack_services"], options["accessory"]["accessory_services"]
            ),
            *readable,
            *readable_vaults(inventory),
            *weak_passwords(self._vault_passwords()),
        ]
        problems = problems or [*body_without_room(stack), *bad_certificate(stack)]
        if problems:
            return problems
        if "provisioner" not in task_vars["group_names"]:
            return [*strange_names(stack, ())]
        missing = [name for name, option in options["ec2"].items() if option.get("required") and not stack.get(name)]
        if missing:
            return [f"{name} has no value; it is needed with this inventory" for name in missing]
        ec2 = {name: option.get("default") for name, option in options["ec2"].items()} | stack
        try:
            who = identify(inventory_region(inventory))
        except AccountError as error:
            return [str(error)]
        prices = read_prices()
        cloud = Cloud(ec2, prices)
        machines = [task_vars["hostvars"][name] for name in task_vars["groups"].get("app", [])]
        addresses = [str(one["ansible_host"]) for one in machines if "ansible_host" in one]
        problems = [
            *closed_ports(ec2),
            *unreachable_ssh(ec2, who.is_rehearsal),
            *scattered_data(ec2),
            *strange_names(ec2, addresses),
            *other_region(ec2, who),
            *ec2_problems(cloud),
        ]
        notes += [estimate(ec2, prices), *cloud.notes]
        if who.is_rehearsal or self._task.args.get("scale"):
            return problems
        said, go_ahead = proof(PROJECT, is_true(ec2["ec2_unproven"]))
        (notes if go_ahead else problems).append(said)
        return problems

    def _is_hidden(self, value: object) -> bool:
        """Tell whether a secret is written as a template, or encrypted in its place."""
        return isinstance(value, EncryptedString) or self._templar.is_template(value)

    def _with_secrets(self, service: Any) -> Any:
        """Fill in a service's secrets; one without a value becomes None: Ansible's own message would not name it."""
        if not isinstance(service, Mapping) or not isinstance(service.get("secrets"), Mapping):
            return service
        return {**service, "secrets": {name: self._value(one) for name, one in service["secrets"].items()}}

    def _with_password(self, accessory: Any) -> Any:
        """Fill in an accessory's password; it becomes None where it has no value."""
        if not isinstance(accessory, Mapping) or "password" not in accessory:
            return accessory
        return {**accessory, "password": self._value(accessory["password"])}

    def _value(self, template: object) -> object:
        try:
            return self._templar.template(template)
        except AnsibleUndefinedVariable:
            return None

    @staticmethod
    def _vault_passwords() -> list[tuple[str, bytes]]:
        context = VaultSecretsContext.current(optional=True)
        return [(name, secret.bytes) for name, secret in context.secrets] if context else []
