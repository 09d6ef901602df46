"""Which containers somebody asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def chosen_containers(listed: Iterable[str], service: str, replica: str) -> list[dict[str, str]]:
    """Choose containers by their service, or one by its id or name.

    Args:
        listed: A line for each container: service, short id, name and number among the service's.
        service: Name of the service; empty for any.
        replica: Id, its beginning, or name; empty for any.

    Returns:
        What is known of those that match. Of several whose ids begin so, none is meant.
    """
    keys = ("service", "id", "name", "number")
    found = [dict(zip(keys, line.split(), strict=True)) for line in listed]
    matching = [
        one
        for one in found
        if service in ("", one["service"]) and (not replica or one["id"].startswith(replica) or one["name"] == replica)
    ]
    return matching if not replica or len(matching) == 1 else []


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., list[dict[str, str]]]]:
        """Name the filter.

        Returns:
            The function by its name.
        """
        return {"chosen_containers": chosen_containers}
