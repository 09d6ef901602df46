"""Ansible lookup: files of a machine, rendered by the templates of a role that have the same place below templates/."""

from __future__ import annotations

from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **_: Any) -> list[dict[str, Any]]:
        """Give each file of a list the ``content`` that its template renders, where it has none."""
        (files,) = terms
        template = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)

        def rendered(path: str) -> str:
            return str(template.run([f"{path.lstrip('/')}.j2"], variables)[0])

        return [dict(file) if "content" in file else {**file, "content": rendered(file["path"])} for file in files]
