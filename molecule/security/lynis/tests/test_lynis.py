"""Lynis, Debian's auditor of hosts, in a finished instance; it takes minutes and is run by hand (docs/security.md)."""

from __future__ import annotations

import re

from testinfra.host import Host

BEFORE = 62
"""Its index on 2026-11-21 (lynis 3.1.4, 248 tests, 1 warning) in an instance as the rehearsal boots it, no role."""

GAINED = 15
"""Points that the roles have to be worth."""

REPORT = "/var/log/lynis-report.dat"


def test_lynis_warns_of_nothing(host: Host) -> None:
    """What it merely suggests is in docs/security.md, with the reasons why some of it stays."""
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends lynis")
    try:
        host.check_output("lynis audit system --quick --quiet --no-colors > /dev/null 2>&1 || true")
        report = host.file(REPORT).content_string
    finally:
        host.check_output("apt-get purge --yes lynis")
    (index,) = re.findall(r"^hardening_index=(\d+)$", report, re.MULTILINE)
    suggestions = re.findall(r"^suggestion\[\]=([^|]+)\|([^|]*)", report, re.MULTILINE)
    print(f"index {index}, before {BEFORE}", *(f"{test}: {text}" for test, text in suggestions), sep="\n")
    assert re.findall(r"^warning\[\]=(.+)$", report, re.MULTILINE) == []
    assert int(index) >= BEFORE + GAINED
