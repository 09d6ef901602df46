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


@pytest.fixture
def on() -> Iterator[Bench]:
    """Return a stack that runs a release, with a command to run before the next one."""
    with bench() as made:
        made.has(OLD)
        pre_deploy = {"pre_deploy": {"app": COMMAND.split()}, "pre_deploy_seconds": 7}
        (made.stack.directory / SETTINGS).write_text(json.dumps(made.settings | pre_deploy))
        made.engine.watch()
        yield made


def audit(on: Bench) -> str:
    """Read the audit log without its times."""
    log = on.stack.directory / "audit.log"
    return re.sub(r"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ", "", log.read_text()) if log.exists() else ""


def test_what_runs_already_is_left_as_it_is(on: Bench) -> None:
    """No step is made, and the audit log stays as it is."""
    name = on.render(OLD)
    assert deploy(on.stack, on.job(), name, prepares=True) == {
        "changed": False,
        "msg": f"Release {name} runs already.",
    }
    assert set(on.engine.steps) == {"compare"}
    assert audit(on) == ""


def test_what_runs_is_not_whole_after_a_kill(on: Bench) -> None:
    """Containers that were to be removed may still be there."""
    name = on.render(OLD)
    assert is_deployed(on.stack, name, NOTHING_BEFORE)
    assert not is_deployed(on.stack, name, KILLED)


def test_what_runs_is_not_whole_without_one_of_its_replicas(on: Bench) -> None:
    """The replica is dead, or was removed by hand."""
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
    """The line says how it ended and who wanted it; a deploy that was killed cannot write one."""
    broken = release("3", fault="dies")
    names = [on.render(one) for one in (NEW, broken)]
    on.deploy(NEW)
    on.deploy(broken)
    on.deploy(OLD, (20, KilledError()))
    assert audit(on) == f"{names[0]} live by jane\n{names[1]} failed by jane\n"


@pytest.mark.parametrize("fault", ["", "unhealthy"])
def test_nginx_is_on_its_own_again_after_a_deploy(on: Bench, fault: str) -> None:
    """However the deploy ended, replicas that start later get requests."""
    on.deploy(release("2", fault=fault))
    assert not (on.stack.directory / ADMITTED).exists()


def test_a_release_that_worked_can_be_gone_back_to(on: Bench) -> None:
    """It becomes the newest one, and who deployed it is still known."""
    on.deploy(NEW)
    kept = on.stack.releases.kept()
    assert [(one.id, one.by) for one in kept] == [(on.render(NEW), "jane"), (on.render(OLD), "joe")]
    assert earlier_release(on.stack, "") == on.render(OLD)
    assert earlier_release(on.stack, on.render(NEW)) == on.render(NEW)


def test_only_so_many_releases_are_kept(on: Bench) -> None:
    """A release goes with all that belongs to it."""
    (on.stack.directory / SETTINGS).write_text(json.dumps(on.settings | {"keep_releases": 1}))
    on.deploy(NEW)
    assert [path.name for path in (on.stack.directory / "releases").iterdir()] == [on.stack.releases.live()]
    assert not (on.stack.directory / "static/app/1.txt").exists()
    assert "fleet/app:1" not in on.engine.images


def test_releases_that_can_be_gone_back_to_are_listed(on: Bench) -> None:
    """The list appears when there is none to go back to, or when an id was mistyped."""
    when = on.stack.releases.kept()[0].activated
    listed = f"no such release can be gone back to. Allowed are:\n{on.render(OLD)}  {when} UTC  by joe (live)"
    for asked, said in {"": "not given", "nonsense": "nonsense"}.items():
        with pytest.raises(FleetError) as refused:
            earlier_release(on.stack, asked)
        assert str(refused.value) == f"release is {said}: {listed}"


def test_a_failed_deploy_goes_back_to_the_newest_release_that_worked() -> None:
    """An older one is not chosen, nor the live one, whose deploy was killed."""
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
    """It runs with its time limit, and its output is shown."""
    on.engine.answers["app"] = Answer(0, "one\ntwo\n")
    assert on.deploy(NEW) == ""
    changes = [one for one in on.engine.steps if one != "compare"]
    assert changes[0] == f"{COMMAND} in app of {on.render(NEW)} for 7 s"
    assert on.said[0] == f"pre_deploy of app ({COMMAND}):\none\ntwo"


def test_the_command_does_not_run_where_the_release_is_only_mended(on: Bench) -> None:
    """It ran when the release was deployed first."""
    on.engine.of("app")[0].running = False
    assert on.deploy(OLD) == ""
    assert not [one for one in on.engine.steps if one.startswith(COMMAND)]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(3, "\n".join(f"line {number}" for number in range(100))), "ended with status 3"),
        (LateError([COMMAND], 7, "\n".join(f"line {number}" for number in range(100))), "did not end within 7 s"),
    ],
)
def test_nothing_is_replaced_where_the_command_fails(on: Bench, answer: Answer | FleetError, outcome: str) -> None:
    """The message has its last lines, the release is removed, and the audit log has an entry."""
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


def test_a_number_that_is_none_is_refused(on: Bench) -> None:
    """Neither nginx nor an unknown service can be scaled, nor any service to zero; nothing is started."""
    for numbers, said in {
        ("web", 2): "web is no service: allowed are app",
        ("nginx", 2): "nginx is no service: allowed are app",
        ("app", 0): "app is 0: allowed is a whole number from 1",
    }.items():
        with pytest.raises(FleetError) as refused:
            scale(on.stack, on.job(), dict([numbers]))
        assert str(refused.value) == said
    assert audit(on) == ""


def test_a_service_is_scaled_until_the_next_deploy(on: Bench) -> None:
    """Other services keep their numbers, the audit log has an entry, and an equal number is no change."""
    assert scale(on.stack, on.job(), {"app": 3}) == {"changed": False}
    assert scale(on.stack, on.job(), {"app": 5}) == {"msg": "app=5 until the next deploy."}
    assert len(on.engine.of("app")) == 5
    assert audit(on) == "scale app=5 by jane\n"
    assert on.deploy(OLD) == ""
    assert on.runs(OLD)


def test_a_scaling_that_fails_is_in_the_audit_log_as_well(on: Bench) -> None:
    """It may have changed something before it failed."""
    on.engine.images.clear()
    with pytest.raises(FleetError, match="there is no image"):
        scale(on.stack, on.job(), {"app": 5})
    assert audit(on) == "scale app=5 by jane\n"
