"""The files and folders that secrets are in."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.secret_files import SecretFolder, hand_over
from plugins.filter.service_secrets import secrets_folder
from tests.project import files, load_yaml, relative, tasks
from tests.test_playbooks import PLAYBOOKS, TASK_FILES, tasks_of

SECRETS = {"session": "one", "tls.key": "line\nline\n"}
OWNER = os.getuid()


def app(**values: str) -> dict[str, object]:
    """Describe a service with secrets."""
    return {"name": "app", "secrets": values}


def wanted(path: Path, owner: int = OWNER) -> SecretFolder:
    """Say what a folder shall have."""
    return SecretFolder(str(path), owner, SECRETS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the secrets into a folder."""
    path = tmp_path / "secrets/app-1"
    assert hand_over([wanted(path)], really=True)["changed"]
    return path


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read_them(folder: Path) -> None:
    """Nobody else sees even how many there are."""
    assert {path.name: path.read_text() for path in folder.iterdir()} == SECRETS
    assert {mode(path) for path in folder.iterdir()} == {0o400}
    assert (mode(folder), mode(folder.parent)) == (0o500, 0o700)
    assert not hand_over([wanted(folder)], really=True)["changed"]


def test_nobody_else_can_read_a_value_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text, modes = Path.write_text, []

    def watched(path: Path, *words: Any, **options: Any) -> int:
        written = write_text(path, *words, **options)
        modes.append(mode(path))
        return written

    monkeypatch.setattr(Path, "write_text", watched)
    hand_over([wanted(tmp_path / "secrets/app-1")], really=True)
    assert modes == [0o600, 0o600]


def test_what_was_changed_by_hand_is_put_right(folder: Path) -> None:
    """It may be a value, a mode, a file too many, one too few, or another owner."""
    damage: dict[str, Callable[[], object]] = {
        "value": lambda: (folder / "session").write_text("two"),
        "mode": lambda: (folder / "session").chmod(0o444),
        "folder": lambda: folder.chmod(0o755),
        "more": lambda: (folder / "more").write_text("x"),
        "fewer": (folder / "session").unlink,
    }
    for what, spoil in damage.items():
        folder.chmod(0o700)
        (folder / "session").chmod(0o600)
        spoil()
        assert hand_over([wanted(folder)], really=False)["changed"], what
        assert hand_over([wanted(folder)], really=True)["changed"], what
        assert wanted(folder).is_right(), what
    assert not wanted(folder, OWNER + 1).is_right()
    assert not wanted(folder.parent / "app-2").is_right()


def test_folder_is_named_by_what_the_secrets_say() -> None:
    """Compose then replaces the replicas for a changed secret only, and the name is the same on every machine."""
    name = secrets_folder(app(a="1", b="2"), "fleet")
    assert name == secrets_folder(app(b="2", a="1"), "fleet")
    others = [app(a="1"), app(a="1", b="3"), app(a="2", b="1"), app(a="1", c="2"), app(a="1b2")]
    assert len({name, *(secrets_folder(other, "fleet") for other in others)}) == len(others) + 1
    assert name.startswith("app-")


def test_equal_secrets_of_two_services_do_not_show() -> None:
    """They show neither in one compose.yml nor in those of two stacks."""
    web = app(key="same") | {"name": "web"}
    names = {secrets_folder(app(key="same"), "fleet"), secrets_folder(web, "fleet"), secrets_folder(web, "other")}
    assert len({name.rpartition("-")[2] for name in names}) == 3


def hands_over(task: dict[str, Any]) -> bool:
    """Tell whether a task gives secrets to a machine."""
    return "flask_fleet" in task and task["flask_fleet"]["verb"] == "secrets"


@pytest.mark.parametrize("path", [*TASK_FILES, *PLAYBOOKS, *files("molecule/*/*.yml")], ids=relative)
def test_task_with_a_secret_shows_nothing(path: Path) -> None:
    """It shows neither arguments and results nor, in diff mode, what changed."""
    if path.name == "molecule.yml":
        return
    for task in tasks_of(path):
        arguments = str({key: value for key, value in task.items() if key != "name"})
        if ".secrets" in arguments or "password" in arguments or "vault_" in arguments or hands_over(task):
            assert task.get("no_log") is True, task["name"]
            assert task.get("diff") is False, task["name"]


def test_secrets_are_handed_over() -> None:
    """Without such tasks the test above would check nothing."""
    found = [task for path in TASK_FILES for task in tasks(load_yaml(path)) if hands_over(task)]
    assert len(found) == 2
