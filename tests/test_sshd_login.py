"""The login that sshd would allow: a mistake here locks somebody out."""

from __future__ import annotations

import pytest

from roles.sshd.filter_plugins.sshd_login import sshd_admits


@pytest.mark.parametrize(
    ("lists", "admitted"),
    [
        ("", True),
        ("allowusers admin", True),
        ("allowusers jane", False),
        ("allowusers jane, allowusers ad*", True),
        ("allowusers admi", False),
        ("allowusers admin@203.0.113.7", True),
        ("allowusers admin@203.0.113.0/24", True),
        ("allowusers admin@203.0.113.*", True),
        ("allowusers admin@192.0.2.0/24", False),
        ("allowusers admin@!203.0.113.7;203.0.113.*", False),
        ("denyusers admin", False),
        ("denyusers *", False),
        ("denyusers jane", True),
        ("denyusers admin@192.0.2.*", True),
        ("denyusers admin@203.0.113.?", False),
        ("allowgroups sudo", True),
        ("allowgroups wheel, allowgroups ssh-*", False),
        ("denygroups wheel", True),
        ("denygroups wheel, denygroups s?do", False),
        ("allowusers admin, denyusers adm*", False),
        ("allowusers admin, allowgroups wheel", False),
    ],
)
def test_lists_let_in_whom_sshd_would(lists: str, admitted: bool) -> None:
    """Each case was tried with OpenSSH 10.0, which decided the same; ``;`` stands for a comma."""
    settings = ["port 22", *filter(None, lists.replace(", ", "\n").replace(";", ",").splitlines())]
    assert sshd_admits(settings, "admin", ["admin", "adm", "sudo"], "203.0.113.7") is admitted
