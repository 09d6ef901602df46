"""Mistakes are explained in a sentence, and the services that run go on serving."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.app import edit
from bench.playbook import playbook
from bench.stack import Stack, assert_nothing_lost
from tests.live_services import PROBE, SERVICES, VARIABLES, changed, find

RATE = 40

BEFORE_ANYTHING: dict[str, tuple[dict[str, Any], str]] = {
    "unknown server": (
        {"stack_services": changed(tools={"server": "waitress"})},
        "stack_services[2] (tools): server is 'waitress': allowed is granian or gunicorn or uwsgi",
    ),
    "two services on one path": (
        {"stack_services": changed(tools={"path": "/api/"})},
        "stack_services: api and tools both have the path /api",
    ),
    "missing module": (
        {"stack_services": changed(tools={"app": "prob:create_app()"})},
        "stack_services[2] (tools): app is 'prob:create_app()': there is no prob.py in",
    ),
    "no service for the rest": (
        {"stack_services": changed(app={"path": "/app"})},
        "stack_services: no service without a host has the path /",
    ),
    "secret missing from the vault": (
        {"stack_services": changed(api={"secrets": {"DATABASE_URL": "{{ vault_database_url }}"}})},
        "stack_services[1] (api): the secret DATABASE_URL has no value",
    ),
    "unknown database": (
        {"stack_services": changed(api={"accessories": ["bd"]})},
        "stack_services[1] (api): accessories has 'bd', which accessory_services does not describe",
    ),
}


@pytest.mark.parametrize("what", BEFORE_ANYTHING)
def test_it_is_refused_before_anything_is_touched(stack: Stack, what: str) -> None:
    """No task on the instance ran."""
    variables, told = BEFORE_ANYTHING[what]
    refused = playbook("playbooks/deploy.yml", "--extra-vars", json.dumps(variables))
    assert not refused.ok
    assert told in " ".join(refused.said.split())
    assert refused.changed.get(stack.instance_id, 0) == 0
    assert "Deploy the stack" not in refused.said


@pytest.mark.long
@pytest.mark.parametrize(("name", "replicas"), [("tools", SERVICES["tools"]["replicas"]), ("extra", 1)])
def test_version_that_does_not_start_leaves_what_was_there_serving(
    stack: Stack, tmp_path: Path, name: str, replicas: int
) -> None:
    """Its module imports one that is missing; the run tells the reason, also for a new service."""
    folder = tmp_path / "probe"
    shutil.copytree(PROBE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    edit(folder / "probe.py", "import socket\n", "import socket\n\nimport nowhere\n")
    wrong = SERVICES["tools"] | {"name": name, "path": f"/{name}", "context": str(folder), "replicas": replicas}
    others = [entry for entry in SERVICES.values() if entry["name"] != name]
    before = {other: {replica.id for replica in stack.containers(other)} for other in SERVICES}
    variables = {"stack_services": [*others, wrong], "stack_start_seconds": 10}
    with find(stack, "tools").under_load(RATE) as load:
        refused = playbook("playbooks/deploy.yml", "--extra-vars", json.dumps(variables))
    assert not refused.ok
    assert "No module named 'nowhere'" in refused.said
    assert "serves on." in refused.said
    assert {other: {replica.id for replica in stack.containers(other)} for other in SERVICES} == before
    assert not stack.containers("extra")
    assert_nothing_lost(load)


@pytest.mark.long
def test_command_before_the_switch_that_fails_stops_the_deploy(stack: Stack) -> None:
    """After a migration that fails, the version that knows the old tables serves on."""
    before = {replica.id for replica in stack.containers("api")}
    wrong = {"pre_deploy": ["python3", "-c", "raise SystemExit('no such column')"], "cpus": "0.4"}
    with find(stack, "api").under_load(RATE) as load:
        refused = playbook("playbooks/deploy.yml", "--extra-vars", json.dumps({"stack_services": changed(api=wrong)}))
    assert not refused.ok
    assert "pre_deploy of api" in refused.said
    assert "no such column" in refused.said
    assert "Nothing was replaced: what served serves on." in refused.said
    assert {replica.id for replica in stack.containers("api")} == before
    assert_nothing_lost(load)


@pytest.mark.long
def test_another_password_than_the_volume_has_is_told(stack: Stack) -> None:
    """PostgreSQL keeps the password of its first start; the data stays, and the services go on serving."""
    door = find(stack, "api")
    guests = json.loads(door.get("/guests").text)
    other = "another-password-by-far"
    accessories = [entry | {"password": "{{ given_password }}"} for entry in VARIABLES["accessory_services"]]
    variables = {"accessory_services": accessories, "given_password": other}
    with find(stack, "app").under_load(RATE) as load:
        refused = playbook("playbooks/deploy.yml", "--extra-vars", json.dumps(variables))
    assert not refused.ok
    assert "accessory_services[0] (db): password is not the one that its volume" in " ".join(refused.said.split())
    assert other not in refused.said
    assert_nothing_lost(load)
    stack.wait_for("what was there is served", lambda: json.loads(door.get("/guests").text) == guests)
    again = playbook("playbooks/deploy.yml")
    assert again.ok, again.said
    assert json.loads(door.get("/guests").text) == guests
    assert len(stack.containers("api")) == SERVICES["api"]["replicas"]
