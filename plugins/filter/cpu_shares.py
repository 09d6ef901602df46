"""Ansible filter: the ``cpu_shares`` with which a container gets a multiple of the CPU weight of one that has none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

DEFAULT_SHARES = 1024
"""The shares of a group without any in cgroup v1."""

DEFAULT_WEIGHT = 100
"""The weight of a group without any in cgroup v2:
https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files."""

MOST_SHARES = 2**18

CURVE_SINCE = (1, 3, 2)
"""runc's first version that converts on a curve: https://github.com/opencontainers/runc/releases/tag/v1.3.2."""


def cpu_shares(times: int, engine: Mapping[str, Any]) -> int:
    """Choose the smallest shares that give a multiple of the default weight.

    Docker takes the shares of cgroup v1 only. On v2 runc converts them to a weight, 2..262144 to 1..10000, and not in
    proportion: first on a line, on which 1024 is 39, since 1.3.2 on a curve through 1024 and 100. The weight of the
    shares is exactly the multiple.

    ``engine`` is what ``docker info --format '{{json .}}'`` prints, read.
    """
    if engine["CgroupVersion"] == "1":
        return times * DEFAULT_SHARES
    # Debian's packages have the version there, Docker's own its description by git, such as v1.2.5-0-g59923ef.
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", engine["RuncCommit"]["ID"])
    old = version is not None and tuple(map(int, version.groups())) < CURVE_SINCE
    convert = on_a_line if old else on_a_curve
    return next(shares for shares in range(2, MOST_SHARES + 1) if convert(shares) >= times * DEFAULT_WEIGHT)


def on_a_line(shares: int) -> int:
    """Convert as runc did until 1.3.1: https://github.com/opencontainers/runc/pull/2213."""
    return 1 + (shares - 2) * 9999 // (MOST_SHARES - 2)


def on_a_curve(shares: int) -> int:
    """Convert as runc does since 1.3.2: https://github.com/opencontainers/cgroups/pull/20."""
    doublings = math.log2(shares)
    return math.ceil(10 ** ((doublings**2 + 125 * doublings) / 612 - 7 / 34))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filter."""
        return {"cpu_shares": cpu_shares}
