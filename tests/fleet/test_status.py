"""The status of a running stack, as a person sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fleet.engine.base import NGINX, Answer, Plan, Replica, Service, State
from fleet.engine.compose import Compose
from fleet.job import Jobs
from fleet.release import Releases
from fleet.stack import Stack
from fleet.status import status

REPLICAS = {
    "app": [
        Replica("0a2", "fleet-app-2", "app", addresses=frozenset({"172.18.0.3"}), health="starting", restarts=2),
        Replica("0a1", "fleet-app-1", "app", addresses=frozenset({"172.18.0.2", "172.19.0.2"}), health="healthy"),
    ],
    NGINX: [Replica("0b1", "fleet-nginx-1", NGINX, health="healthy", out_of_memory=True)],
}


class Engine(Compose):
    def compare(self, release: str | None) -> State:
        assert release is None
        return State({name: Service(Plan(len(those), "image"), tuple(those)) for name, those in REPLICAS.items()})

    def usage(self) -> dict[str, tuple[str, str]]:
        return {"fleet-app-1": ("1.50%", "30MiB of 128MiB")}

    def execute(self, container: str, command: Sequence[str]) -> Answer:
        assert (container, command[0]) == (NGINX, "balancer-status")
        known = '{"172.18.0.2": {"ready": true, "served": 3}, "172.18.0.3": {"ready": false, "served": 1}}'
        return Answer(0, f'{{"services": {{"app": {{"replicas": {known}}}}}}}')

    def replicas(self, ids: Sequence[str] | None = None) -> list[Replica]:
        assert ids == ["standby"]
        return []

    def standby(self) -> str:
        return "standby"


@pytest.fixture
def stack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return Stack(folder, Engine(Releases(folder)))


def test_each_replica_is_a_row(stack: Stack) -> None:
    seen = status(stack, Jobs(stack.directory))
    head, empty, *rows = seen["text"].splitlines()
    assert head.startswith(f"release {stack.releases.live()}, live since 20")
    assert head.endswith(" UTC, by jane")
    assert not empty
    assert rows == [
        "replica        health    ready  restarts  CPU    memory           requests  share  id",
        "fleet-app-1    healthy   yes    0         1.50%  30MiB of 128MiB  3         75.0%  0a1",
        "fleet-app-2    starting  NO     2         -      -                1         25.0%  0a2",
        "fleet-nginx-1  healthy   -      0         -      -, RAN OUT       -         -      0b1",
    ]
    second = {"name": "fleet-app-2", "id": "0a2", "service": "app", "ready": False, "health": "starting"}
    assert seen["replicas"][1] == second
    assert (seen["live"], seen["job"]) == (stack.releases.live(), "")


def test_job_that_is_under_way_is_named_and_one_that_was_killed(stack: Stack, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)

    def look(_: object) -> dict[str, str]:
        seen = status(stack, jobs)
        return {"msg": f"{seen['text'].splitlines()[1]}\n{seen['job']}"}

    jobs.work("", "1", "deploy x", "jane", look)
    line, for_a_program = jobs.progress().result["msg"].splitlines()
    assert line == f"under way: {for_a_program}"
    assert for_a_program.startswith("deploy x by jane, begun at 20")
    notes = tmp_path / "job.jsonl"
    notes.write_text(notes.read_text().splitlines(keepends=True)[0])
    seen = status(stack, jobs)
    assert seen["text"].splitlines()[1].startswith("killed before its end: deploy x by jane, begun at 20")
    assert seen["job"] == ""
