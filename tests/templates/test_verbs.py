"""What a playbook is told arrives at the machine's program, and a deploy does its work in the right order."""

from itertools import chain
from typing import Any

import pytest

from bench.render import Renderer
from tests.project import ROOT, SERVICE, files, load_yaml, tasks

WHO = "--who=joe: hotfix"


def program_tasks(path: str) -> list[dict[str, Any]]:
    """List how the task files of a role run the machine's program."""
    found = [task for file in files(f"roles/{path}") for task in tasks(load_yaml(file))]
    return [task["flask_fleet"] for task in found if "flask_fleet" in task]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("file", "given", "words"),
    [
        ("run", {"__stack_release": "0123456789ab"}, ["deploy", "0123456789ab", WHO]),
        ("rollback", {}, ["rollback", WHO]),
        ("rollback", {"release": "0123456789ab"}, ["rollback", "0123456789ab", WHO]),
        ("scale", {"app": 5}, ["scale", "app=5", WHO]),
        ("scale", {"app": "5", "api": "2"}, ["scale", "app=5", "api=2", WHO]),
        ("maintenance", {"maintenance": "true"}, ["maintenance", "on"]),
        ("maintenance", {"maintenance": False}, ["maintenance", "off"]),
    ],
)
def test_variables_become_words(render: Renderer, file: str, given: dict[str, Any], words: list[str]) -> None:
    (task,) = program_tasks(f"stack/tasks/{file}.yml")
    known = {"hostvars": {"here": given}, "inventory_hostname": "here", "stack_reason": "hotfix", "stack_who": "joe"}
    services = [SERVICE, SERVICE | {"name": "api"}]
    told = [render.value("stack", text, stack_services=services, **known, **given) for text in as_list(task["words"])]
    assert [task["verb"], *chain.from_iterable(map(as_list, told))] == words


def test_deploy_follows_others_first_and_builds_before_it_changes_anything() -> None:
    """Who has to wait is told at once, and a build that fails begins no job."""
    (play,) = (one for one in load_yaml(ROOT / "playbooks/deploy.yml") if "hosts" in one)
    first, second, *others = (task["ansible.builtin.import_role"] for task in play["tasks"])
    assert first == {"name": "stack", "tasks_from": "follow"}
    assert play["tasks"][0]["tags"] == ["always"]
    assert [task["verb"] for task in program_tasks("stack/tasks/follow.yml")] == ["follow"]
    assert second == {"name": "image"}
    assert program_tasks("image/tasks/*.yml") == []
    assert {"name": "stack"} in others
