"""Deploy, rollback and scaling apart from the roll-out: refusals, the command before, and the audit log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from fleet.deploy import deploy, earlier_release, is_deployed, scale
from fleet.engine.base import Answer
from fleet.proxy import ADMITTED
from fleet.stack import SETTINGS
from fleet.system import FleetError, LateError
from tests.fleet.fake_engine import KILLED, NOTHING_BEFORE, Bench, KilledError, bench, release

OLD, NEW = release("1"), release("2")
COMMAND = "flask db upgrade"
LINES = "\n".join(f"line {number}" for number in range(100))


@pytest.fixture
def on() -> Iterator[Bench]:
    with bench() as made:
        made.has(OLD)
        pre_deploy = {"pre_deploy": {"app": COMMAND.split()}, "pre_deploy_seconds": 7}
        (made.stack.directory / SETTINGS).write_text(json.dumps(made.settings | pre_deploy))
        made.engine.watch()
        yield made


def audit(on: Bench) -> str:
    log = on.stack.directory / "audit.log"
    return re.sub(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ", "", log.read_text()) if log.exists() else ""


def test_what_runs_already_is_left_as_it_is(on: Bench) -> None:
    name = on.render(OLD)
    outcome = deploy(on.stack, on.job(), name, prepares=True)
    assert outcome == {"changed": False, "msg": f"Release {name} runs already."}
    assert set(on.engine.steps) == {"compare"}
    assert audit(on) == ""


def test_what_runs_is_not_whole_after_a_kill(on: Bench) -> None:
    """Containers that were to be removed may still be there."""
    name = on.render(OLD)
    assert is_deployed(on.stack, name, NOTHING_BEFORE)
    assert not is_deployed(on.stack, name, KILLED)


def test_what_runs_is_not_whole_without_one_of_its_replicas(on: Bench) -> None:
    on.engine.of("app")[0].running = False
    assert not is_deployed(on.stack, on.render(OLD), NOTHING_BEFORE)
    on.engine.remove([on.engine.of("app")[0].id])
    assert not is_deployed(on.stack, on.render(OLD), NOTHING_BEFORE)
    assert on.deploy(OLD) == ""
    assert on.runs(OLD)


def test_what_runs_is_not_whole_while_nginx_has_another_configuration(on: Bench) -> None:
    """An earlier deploy may have been killed just before nginx read the file."""
    (nginx,) = on.engine.of("nginx")
    nginx.conf = nginx.conf.replace('"1"', '"0"')
    assert not is_deployed(on.stack, on.render(OLD), NOTHING_BEFORE)
    assert on.deploy(OLD) == ""
    assert on.runs(OLD)


def test_each_deploy_is_in_the_audit_log(on: Bench) -> None:
    broken = release("3", fault="dies")
    names = [on.render(one) for one in (NEW, broken)]
    on.deploy(NEW)
    on.deploy(broken)
    on.deploy(OLD, (20, KilledError()))
    assert audit(on) == f"{names[0]} live by jane\n{names[1]} failed by jane\n"


@pytest.mark.parametrize("fault", ["", "unhealthy"])
def test_nginx_is_on_its_own_again_after_a_deploy(on: Bench, fault: str) -> None:
    on.deploy(release("2", fault=fault))
    assert not (on.stack.directory / ADMITTED).exists()


def test_a_release_that_worked_can_be_gone_back_to(on: Bench) -> None:
    on.deploy(NEW)
    kept = on.stack.releases.kept()
    assert [(one.id, one.by) for one in kept] == [(on.render(NEW), "jane"), (on.render(OLD), "joe")]
    assert earlier_release(on.stack, "") == on.render(OLD)
    assert earlier_release(on.stack, on.render(NEW)) == on.render(NEW)


def test_the_release_before_is_gone_back_to_and_no_older_one(on: Bench) -> None:
    on.deploy(NEW)
    on.deploy(release("3"))
    assert earlier_release(on.stack, "") == on.render(NEW)
    assert earlier_release(on.stack, on.render(OLD)) == on.render(OLD)


def test_only_so_many_releases_are_kept(on: Bench) -> None:
    (on.stack.directory / SETTINGS).write_text(json.dumps(on.settings | {"keep_releases": 1}))
    on.deploy(NEW)
    assert [path.name for path in (on.stack.directory / "releases").iterdir()] == [on.stack.releases.live()]
    assert not (on.stack.directory / "static/app/1.txt").exists()
    assert "fleet/app:1" not in on.engine.images


def test_a_release_whose_files_were_refused_is_no_obstacle(on: Bench) -> None:
    """Its folder is there without files, and is as old as the files that are just being written."""
    on.stack.releases.folder("refused").mkdir()
    assert on.deploy(NEW) == ""
    assert on.stack.releases.folder("refused").exists()


def test_a_failed_deploy_goes_back_to_the_newest_release_that_worked() -> None:
    oldest, old, killed, broken = (release(str(number)) for number in range(4))
    broken["app"] = {**broken["app"], "fault": "silent"}
    with bench() as on:
        on.has(oldest, days_ago=2)
        on.has(old)
        on.deploy(killed, (30, KilledError()))
        assert on.stack.releases.live() == on.render(killed)
        assert on.deploy(broken).endswith(f"Release {on.render(old)} serves on."), on.story
        assert on.runs(old)


def test_a_rollback_leaves_out_the_command_before(on: Bench) -> None:
    """An older release does not undo what the command changed in a database."""
    on.deploy(NEW)
    on.engine.watch()
    deploy(on.stack, on.job(), earlier_release(on.stack, ""), prepares=False)
    assert on.runs(OLD)
    assert not [one for one in on.engine.steps if one.startswith(COMMAND)]


def test_the_command_runs_in_the_new_release_before_anything_changes(on: Bench) -> None:
    on.engine.answers["app"] = Answer(0, "one\ntwo\n")
    assert on.deploy(NEW) == ""
    changes = [one for one in on.engine.steps if one != "compare"]
    assert changes[0] == f"{COMMAND} in app of {on.render(NEW)} for 7 s"
    assert on.said[0] == f"pre_deploy of app ({COMMAND}):\none\ntwo"


def test_the_command_does_not_run_where_the_release_is_only_mended(on: Bench) -> None:
    on.engine.of("app")[0].running = False
    assert on.deploy(OLD) == ""
    assert not [one for one in on.engine.steps if one.startswith(COMMAND)]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(Answer(3, LINES), "ended with status 3"), (LateError([COMMAND], 7, LINES), "did not end within 7 s")],
)
def test_nothing_is_replaced_where_the_command_fails(on: Bench, answer: Answer | FleetError, outcome: str) -> None:
    name = on.render(NEW)
    on.engine.answers["app"] = answer
    failure = on.deploy(NEW)
    told = f"pre_deploy of app ({COMMAND}) {outcome}. Nothing was replaced: what served serves on.\nIts last lines:\n"
    assert failure.startswith(told)
    assert failure.endswith("line 98\nline 99")
    assert "line 9\n" not in failure
    assert not on.stack.releases.folder(name).exists()
    assert audit(on) == f"{name} failed by jane\n"
    assert on.runs(OLD)


def test_nothing_goes_where_the_live_release_is_of_a_deploy_that_was_killed(on: Bench) -> None:
    """The removal of that release would take the secrets of its replicas along."""
    on.deploy(NEW, (30, KilledError()))
    on.engine.answers["app"] = Answer(1, "")
    assert "ended with status 1" in on.deploy(release("3"))
    for one in (NEW, release("3")):
        assert on.stack.releases.folder(on.render(one)).exists()


def test_a_service_is_scaled_until_the_next_deploy(on: Bench) -> None:
    with pytest.raises(FleetError, match="web is no service: allowed are app"):
        scale(on.stack, on.job(), {"web": 2})
    assert scale(on.stack, on.job(), {"app": 3}) == {"changed": False}
    assert scale(on.stack, on.job(), {"app": 5}) == {"msg": "app=5 until the next deploy."}
    assert len(on.engine.of("app")) == 5
    assert audit(on) == "scale app=5 by jane\n"
    assert on.deploy(OLD) == ""
    assert on.runs(OLD)


def test_a_scaling_that_fails_is_in_the_audit_log_as_well(on: Bench) -> None:
    on.engine.images.clear()
    with pytest.raises(FleetError, match="there is no image"):
        scale(on.stack, on.job(), {"app": 5})
    assert audit(on) == "scale app=5 by jane\n"
