"""Backups on the controller: which files count as one, and when a new one gets its name."""

import stat
from pathlib import Path

import pytest

from plugins.lookup.project import databases
from roles.accessory.library.backup_file import keep, problem

MAGIC = {kind: known["magic"] for kind, known in databases().items()}


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"PGDMP\x01", "postgresql", ""),
        (b"REDIS0012", "redis", ""),
        (
            b"REDIS0012",
            "postgresql",
            "that is one of redis; allowed is a file that playbooks/backup.yml made of postgr",
        ),
        (b"-- PostgreSQL database dump", "postgresql", "that is no backup; allowed is a file"),
        (b"", "redis", "that is no backup; allowed is a file"),
        (None, "redis", "there is no such file; allowed is a file"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes | None, kind: str, said: str) -> None:
    """It is refused before it is sent anywhere."""
    file = tmp_path / "backup"
    if content is not None:
        file.write_bytes(content)
    assert said in problem(file, kind, MAGIC)
    assert bool(problem(file, kind, MAGIC)) is bool(said)


def test_backup_gets_its_name_when_it_is_there(tmp_path: Path) -> None:
    """Only its owner can read it, whatever the umask is."""
    part = tmp_path / "db.part"
    part.write_bytes(b"PGDMP")
    part.chmod(0o644)
    keep(part, tmp_path / "db")
    assert [path.name for path in tmp_path.iterdir()] == ["db"]
    assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o600
