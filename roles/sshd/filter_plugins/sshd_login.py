"""Ansible filter: whether sshd's lists of users and groups would let somebody in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any


def _matches(pattern: str, word: str) -> bool:
    """Match as sshd does, which knows * and ? only."""
    wild = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(wild, word) is not None


def _has_address(pattern: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return _matches(pattern, address)


def _names(entry: str, user: str, address: str) -> bool:
    """Tell whether an entry such as jane, j* or jane@10.0.0.0/8,!10.0.0.1 means a user from an address."""
    name, at, hosts = entry.partition("@")
    if not _matches(name, user):
        return False
    patterns = hosts.split(",") if at else ["*"]
    if any(one.startswith("!") and _has_address(one[1:], address) for one in patterns):
        return False
    return any(not one.startswith("!") and _has_address(one, address) for one in patterns)


def sshd_admits(settings: Iterable[str], user: str, groups: Iterable[str], address: str) -> bool:
    """Tell whether a login is let in by AllowUsers, DenyUsers, AllowGroups and DenyGroups.

    ``settings`` are lines of ``sshd -T``, which has one entry of these lists a line. Of hosts that are given by name
    sshd knows none, because it has ``UseDNS no``.
    """
    lists: dict[str, list[str]] = {}
    for line in settings:
        option, _, entry = line.partition(" ")
        lists.setdefault(option, []).append(entry)

    def user_in(option: str) -> bool:
        return any(_names(entry, user, address) for entry in lists.get(option, []))

    def group_in(option: str) -> bool:
        return any(_matches(entry, group) for entry in lists.get(option, []) for group in groups)

    return not (
        user_in("denyusers")
        or group_in("denygroups")
        or ("allowusers" in lists and not user_in("allowusers"))
        or ("allowgroups" in lists and not group_in("allowgroups"))
    )


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filter."""
        return {"sshd_admits": sshd_admits}
