"""What backup, restore, down and destroy refuse, in one sentence and before they touch anything, without an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.playbook import Outcome
from tests.accessories.conftest import Lab
from tests.fake_docker import Docker

WRONG: list[tuple[str, dict[str, str], str]] = [
    ("restore", {}, 'accessory is "" and backup "": allowed is one of accessory_services (db, cache), and a file'),
    ("restore", {"accessory": "dbb", "backup": "x"}, 'accessory is "dbb" and backup "x": allowed is one of'),
    (
        "restore",
        {"accessory": "db", "backup": "/no/such/file"},
        "there is no such file; allowed is a file that playbooks/backup.yml",
    ),
    (
        "restore",
        {"accessory": "db", "backup": "README.md"},
        "README.md: that is no backup; allowed is a file that playbooks/backup",
    ),
    ("backup", {"accessory": "dbb"}, 'accessory is "dbb": allowed is one of accessory_services (db, cache)'),
]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return an inventory with databases that do not run."""
    Docker(tmp_path / "bin", monkeypatch)
    return Lab(tmp_path)


def assert_nothing_came_of_it(refused: Lab, run: Outcome) -> None:
    assert "Traceback" not in run.said
    assert all(password not in run.said for password in refused.passwords.values())
    assert not list(refused.backups.rglob("*.*"))


def test_what_is_wrong_is_refused(refused: Lab) -> None:
    """One play tries everything that the role refuses."""
    tried: list[dict[str, Any]] = [
        {
            "block": [{"ansible.builtin.include_role": {"name": "accessory", "tasks_from": verb}, "vars": variables}],
            "rescue": [{"ansible.builtin.debug": {"msg": f"case {number}: {{{{ ansible_failed_result.msg }}}}"}}],
        }
        for number, (verb, variables, _) in enumerate(WRONG)
    ]
    (refused.folder / "wrong.yml").write_text(json.dumps([{"hosts": "app", "tasks": tried}]))
    run = refused.play(refused.folder / "wrong.yml")
    said = [run.text.partition(f"localhost: case {number}: ")[2] for number in range(len(WRONG))]
    assert [one for one, (_, _, why) in zip(said, WRONG, strict=True) if why not in one.partition(": case ")[0]] == []
    assert_nothing_came_of_it(refused, run)


@pytest.mark.parametrize(
    ("playbook", "arguments", "said"),
    [
        ("backup", "", "db does not run here. To start it: playbooks/deploy.yml"),
        ("down", "data=remove", 'data is "remove": allowed is delete'),
        ("destroy", "data=remove", 'data is "remove": allowed is delete'),
        ("destroy", "", "Nothing was removed. The databases db, cache would go with the instances"),
        ("destroy", "data=keep", "Back them up with ansible-playbook playbooks/backup.yml"),
    ],
)
def test_playbook_refuses(refused: Lab, playbook: str, arguments: str, said: str) -> None:
    """The refusal comes even when no instance can be asked, and nothing is left behind."""
    run = refused.play(f"playbooks/{playbook}.yml", f"--extra-vars={arguments}")
    assert not run.ok
    assert said in run.text, run.said
    assert_nothing_came_of_it(refused, run)
