"""Renders a role's template as a play would, without a play.

The text goes through Ansible's own template engine with the role's defaults, its vars and its plugins, so what a test
sees is what a machine would get. A variable that nobody defined is an error, as in a play.
"""

from functools import cache
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader, lookup_loader, test_loader
from ansible.template import Templar, trust_as_template
from ansible.utils.collection_loader import AnsibleCollectionConfig

MANAGED = "Ansible managed: rendered by a test"
PLUGINS = {"filter_plugins": filter_loader, "lookup_plugins": lookup_loader, "test_plugins": test_loader}


def machine(version: str = "26.1.5+dfsg1", cgroup: str = "1", **facts: Any) -> dict[str, Any]:
    """Register what `flask-fleet facts` says of a t2.micro with Debian 13's runc, as a task does."""
    known = {"ServerVersion": version, "CgroupVersion": cgroup, "RuncCommit": {"ID": "1.1.15+ds1-2+deb13u1"}}
    return {"processors": 1, "memory_mib": 950, "engine": known, "openssl": "3.5.4", **facts}


class Renderer:
    """Renders the templates of the roles in one folder."""

    def __init__(self, roles: Path) -> None:
        """Make the plugins of those roles known, as ansible-playbook does for the roles of a play."""
        self.roles = roles
        if AnsibleCollectionConfig.collection_finder is None:
            init_plugin_loader()
        for folder, loader in PLUGINS.items():
            for path in sorted(roles.glob(f"*/{folder}")):
                loader.add_directory(str(path))

    def __call__(self, role: str, template: str, *, facts: dict[str, Any] | None = None, **variables: Any) -> str:
        """Return the text of roles/<role>/templates/<template>.

        Given variables win over vars/main.yml, so that a test can set what a task would have found out; ``facts``
        is what the template sees as ansible_facts. A given string is data: wrap it in trust_as_template to have
        the engine look inside it.
        """
        source = self.roles / role / "templates" / template
        text = source.read_text(encoding="utf-8")
        overrides = {"trim_blocks": True}
        rendered = self._template(role, text, source.parent, variables | {"ansible_facts": facts or {}}, overrides)
        return "" if rendered is None else str(rendered)

    def value(self, role: str, text: str, **variables: Any) -> Any:
        """Return what a text with variables of a role means in a play; given variables win, as above."""
        return self._template(role, text, self.roles / role, {"ansible_facts": {}} | variables, {})

    def _template(
        self, role: str, text: str, beside: Path, variables: dict[str, Any], overrides: dict[str, Any]
    ) -> Any:
        loader = DataLoader()
        loader.set_basedir(str(self.roles / role))
        values = {
            "ansible_managed": MANAGED,
            "role_name": role,
            "role_path": str(self.roles / role),
            **_variables(self.roles / role / "defaults/main.yml"),
            **_variables(self.roles / role / "vars/main.yml"),
            **variables,
        }
        templar = Templar(loader=loader, variables=values).copy_with_new_env(
            searchpath=[str(self.roles / role / "templates"), str(beside)], available_variables=values
        )
        return templar.template(trust_as_template(text), escape_backslashes=False, overrides=overrides)


@cache
def _variables(file: Path) -> dict[str, Any]:
    return (DataLoader().load_from_file(str(file), trusted_as_template=True) or {}) if file.exists() else {}
