"""Ansible lookup: files of a machine, rendered by the templates of a role that have the same place below templates/."""

from __future__ import annotations

from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc]
    """Ansible's entry point."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Give each file the content that its template renders.

        Args:
            terms: Lists of mappings, each with the ``path`` of a file; ``content`` where it has no template.

        Returns:
            The mappings with their ``content``, as the action flask_fleet takes them.
        """
        self.set_options(var_options=variables, direct=kwargs)
        template = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)
        return [
            {"content": template.run([f"{file['path'].lstrip('/')}.j2"], variables)[0]} | dict(file)
            if "content" not in file
            else dict(file)
            for term in terms
            for file in (term if isinstance(term, list) else [term])
        ]
