"""The machine's program with a real engine, and without Ansible: what it says it did, and no request that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from bench.stack import assert_nothing_lost
from tests.engine.conftest import NAME, PATIENCE_S, REPLICAS, Testbed, containers_and_networks, docker

pytestmark = pytest.mark.docker

BROKEN = {
    "crashes": ['ENTRYPOINT ["sh", "-c", "echo no database; exit 1"]'],
    "is never healthy": ['HEALTHCHECK --interval=1s CMD ["sh", "-c", "echo no database; exit 1"]'],
}


def who_answers(bed: Testbed) -> set[str]:
    """Ask some times, and return the ids of the containers that answered."""
    return {str(bed.get("/whoami").json()["container"]) for _ in range(4 * REPLICAS)}


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.2)


def assert_only(bed: Testbed, image: str) -> None:
    """Assert that an image runs, in the number that its release says, and that all of it answers."""
    running = bed.replicas()
    assert list(running.values()) == [image] * REPLICAS
    assert who_answers(bed) == set(running)


def test_new_code_takes_over_and_is_taken_back(bed: Testbed) -> None:
    """Nobody notices, and a second deploy of the same finds nothing to do; a misspelt release is refused."""
    old, new, audit = bed.image_that_runs(), bed.version(), bed.audit()
    with bed.under_load() as load:
        release = bed.deploy(new)
        assert_only(bed, new)
        assert not bed.succeed("deploy", release)["changed"]
        assert bed.get("/static/css/site.css").ok
        bed.succeed("rollback")
        assert_only(bed, old)
    assert_nothing_lost(load)
    first, second = bed.audit()[len(audit) :]
    assert f" {release} live by " in first
    assert " live by " in second
    refused = bed.run("rollback", "misspelt")
    assert "release is misspelt" in refused["msg"]
    assert "(live)" in refused["msg"]


@pytest.mark.parametrize("how", BROKEN)
def test_broken_code_goes_and_says_why(bed: Testbed, how: str) -> None:
    """The release before serves on in the same containers, and nothing of the new one is left."""
    before, audit, kept = bed.replicas(), bed.audit(), bed.kept()
    release = bed.bring(bed.version(*BROKEN[how]), stack_start_seconds=3)
    with bed.under_load() as load:
        failed = bed.run("deploy", release)
    assert_nothing_lost(load)
    assert failed["failed"]
    assert "no database" in failed["msg"]
    assert failed["msg"].endswith("serves on.")
    assert bed.replicas() == before
    assert bed.kept() == kept
    (line,) = bed.audit()[len(audit) :]
    assert f" {release} failed by " in line


def test_nginx_that_does_not_start_never_takes_over(bed: Testbed) -> None:
    """Its trial beside the one that serves tells."""
    app = bed.image_that_runs()
    release = bed.bring(app, bed.image("nginx", 'CMD ["false"]'))
    with bed.under_load() as load:
        failed = bed.run("deploy", release)
    assert_nothing_lost(load)
    assert failed["msg"].endswith("serves on."), failed
    assert_only(bed, app)


@pytest.mark.parametrize(("file", "reason"), [("nginx.conf", "nginx refuses nginx.conf"), ("compose.yml", "yaml")])
def test_files_that_the_programs_refuse_are_not_written(bed: Testbed, file: str, reason: str) -> None:
    """The real programs read them before anything is changed."""
    app = bed.image_that_runs()
    release, files = bed.bundle(app, stack_retry_seconds=6)
    for one in files:
        if one["path"].endswith(file):
            one["content"] += "\n}"
    refused = bed.run("bring", release, stdin=json.dumps(files))
    assert refused["failed"]
    assert reason in refused["msg"]
    assert not list((bed.directory / "releases" / release).iterdir())
    assert not bed.succeed("deploy")["changed"]


def test_numbers_change_and_nobody_notices(bed: Testbed) -> None:
    """Of two who begin at once one is refused; typed by hand they hold until the next deploy as well."""
    app, audit = bed.image_that_runs(), bed.audit()
    with bed.under_load() as load:
        both = [subprocess.Popen(bed.command("scale", "app=1"), stdout=subprocess.PIPE, text=True) for _ in range(2)]
        answers = [json.loads(one.communicate(timeout=PATIENCE_S)[0]) for one in both]
        assert sorted(one["failed"] for one in answers) == [False, True], answers
        assert [one["busy"] for one in answers if one["failed"]] == [True]
        assert len(bed.replicas()) == 1
        assert len(bed.audit()) == len(audit) + 1
        docker("compose", f"--project-directory={bed.directory}", "up", "--detach", f"--scale=app={REPLICAS + 2}")
        wait_for("all of them answer", lambda: who_answers(bed) == set(bed.replicas()))
        assert len(bed.replicas()) == REPLICAS + 2
        bed.succeed("deploy")
    assert_nothing_lost(load)
    assert_only(bed, app)


def test_stopped_replica_is_not_missed(bed: Testbed) -> None:
    """A person may stop it, and start it again."""
    victim, *_ = before = bed.replicas()
    with bed.under_load() as load:
        docker("stop", victim)
        assert victim not in who_answers(bed)
        docker("start", victim)
        wait_for("it answers again", lambda: victim in who_answers(bed))
    assert_nothing_lost(load)
    assert set(bed.replicas()) == set(before)


def test_killed_roll_out_is_ended_by_the_next(bed: Testbed) -> None:
    """Wherever it was killed, what serves serves on."""
    new, audit = bed.version(), bed.audit()
    release = bed.bring(new, stack_surge=1)
    with bed.under_load() as load:
        for words in ("started ", "drained and removed"):
            job = bed.started("deploy", release)
            os.kill(bed.wait_for_line(job, words), signal.SIGKILL)
            wait_for("it is gone", lambda: bed.jobs.progress().ended)
            assert "It was killed before its end" in bed.run("follow")["msg"]
        bed.succeed("deploy", release)
    assert_nothing_lost(load)
    assert_only(bed, new)
    (line,) = bed.audit()[len(audit) :]
    assert " live by " in line
    assert len(containers_and_networks()[0]) == REPLICAS + 1


def test_cancelled_roll_out_goes_back(bed: Testbed) -> None:
    """Until its end nobody else can change anything."""
    before, audit = bed.replicas(), bed.audit()
    release = bed.bring(bed.version())
    with bed.under_load() as load:
        pid = bed.wait_for_line(bed.started("deploy", release), "started ")
        # A busy machine may be slow to cancel it.
        os.kill(pid, signal.SIGSTOP)
        refused = bed.run("scale", "app=1")
        assert "Cancelled: deploy" in bed.succeed("cancel")["msg"]
        os.kill(pid, signal.SIGCONT)
        wait_for("it has ended", lambda: bed.jobs.progress().ended)
    assert_nothing_lost(load)
    assert f"Another job is under way here: deploy {release} by " in refused["msg"]
    assert "It was cancelled." in bed.run("follow")["msg"]
    assert bed.replicas() == before
    (line,) = bed.audit()[len(audit) :]
    assert f" {release} failed by " in line
    assert bed.run("cancel")["msg"] == "Nothing is under way here."


def test_prune_removes_what_no_kept_release_needs(bed: Testbed) -> None:
    """A release that was just brought stays, because somebody may be about to deploy it."""
    app = bed.image_that_runs()
    # Only nginx.conf says something else.
    live = bed.deploy(app, stack_retry_seconds=7)
    to_come = bed.bring(next_one := bed.version(), stack_keep_releases=1)
    bed.succeed("prune")
    assert bed.kept() == {live, to_come}
    reference = ["--filter", f"reference={NAME}/app", "--format", "{{.Repository}}:{{.Tag}}"]
    assert set(docker("images", *reference).split()) == {app, next_one}
    assert set(json.loads((bed.directory / "static/app.json").read_text())) == {app}
