"""The roll-out: its decisions, and that no failure and no kill at any step costs a client an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as changed
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fleet.engine.base import NGINX, Plan, Replica, Service, State
from fleet.rollout import Step, changes_to_uwsgi, leaves_uwsgi, new_nginx_is_blind, next_step, running_nginx_is_blind
from fleet.system import CancelledError, FleetError
from tests.fleet.fake_engine import Bench, KilledError, Release, bench, release


def replica(number: int, **other: Any) -> Replica:
    """Describe a container, which is an old one that serves unless the arguments say otherwise."""
    serving = Replica(f"c{number}", f"c{number}", "app", port="5000", protocol="http", ready=True, fresh=False)
    return changed(serving, since=f"{number:04}", **other)


def replicas(old: int, fresh: int = 0) -> list[Replica]:
    """Describe a number of old and of fresh containers."""
    return [replica(number, fresh=number >= old) for number in range(old + fresh)]


@pytest.mark.parametrize("wanted", [1, 2, 3, 5])
@pytest.mark.parametrize("surge", [1, 2, 5])
@pytest.mark.parametrize("old", [1, 3, 7])
@pytest.mark.parametrize("fresh", [0, 1, 3])
def test_the_change_ends_within_its_bounds(wanted: int, surge: int, old: int, fresh: int) -> None:
    """Fewer replicas than wanted lose requests; more than the surge may not fit into a small machine's memory."""
    running, numbers = replicas(old, fresh), count(100)
    least, most = min(wanted, len(running)), max(wanted + surge, len(running))
    for _ in range(100):
        step = next_step(wanted, surge, running)
        if step is None:
            assert all(one.fresh for one in running)
            assert len(running) >= wanted
            return
        if step.action == "start":
            assert step.count > len(running)
            running += [replica(next(numbers), fresh=True) for _ in range(step.count - len(running))]
        else:
            running = [one for one in running if one.id not in step.replicas]
        assert least <= len(running) <= most
    pytest.fail("it never ends")


def test_only_numbers_differ_is_nothing_to_roll_out() -> None:
    assert next_step(5, 1, replicas(0, 2)) is None
    assert next_step(1, 1, replicas(0, 2)) is None


def test_dead_ones_go_first() -> None:
    """A replica that an interrupted run left dead occupies the place of one that could serve."""
    dead = replica(7, running=False)
    assert next_step(2, 1, [*replicas(2), dead]) == Step("remove", replicas=("c7",))


def test_a_replica_that_takes_no_traffic_is_retired_first() -> None:
    hung = replica(2, ready=False)
    assert next_step(2, 1, [*replicas(2), hung]) == Step("drain", replicas=("c2",))
    assert next_step(2, 1, replicas(3)) == Step("drain", replicas=("c0",))
    fresh = replica(2, ready=False, fresh=True)
    assert next_step(2, 1, [*replicas(0, 2), fresh]) == Step("drain", replicas=("c2",))
    assert next_step(3, 1, [*replicas(0, 2), fresh]) is None


def service(networks: str, *running: str, **plan: Any) -> Service:
    """Describe a service: the networks that it will have, and those of each container that runs."""
    found = [replica(number, networks=frozenset(one.split())) for number, one in enumerate(running)]
    given = {"port": "5000", "protocol": "http"} | plan
    return Service(Plan(1, "image", frozenset(networks.split()), **given), tuple(found))


@pytest.mark.parametrize(
    ("app", "nginx", "running_is_blind", "new_is_blind"),
    [
        (service("inside"), service("default inside"), False, False),
        (service("default", "default"), service("default", "default"), False, False),
        (service("inside", "default"), service("default inside", "default"), True, False),
        (service("inside", "default", "inside"), service("default inside", "default inside"), False, False),
        (service("default", "inside"), service("default", "default inside"), False, True),
        (service("inside outside", "inside"), service("default inside", "default inside"), False, False),
        (service("inside"), service("default inside", "default"), False, False),
    ],
    ids=["first deploy", "as ever", "moves", "half way", "goes back", "way out", "a new service"],
)
def test_nginx_reaches_the_replicas_all_the_time(
    app: Service, nginx: Service, *, running_is_blind: bool, new_is_blind: bool
) -> None:
    """When a service moves to another network, an nginx that is in both networks serves meanwhile."""
    state = State({"app": app, NGINX: nginx})
    assert running_nginx_is_blind(state) is running_is_blind
    assert new_nginx_is_blind(state) is new_is_blind


@pytest.mark.parametrize(
    ("old", "new", "running_finds", "new_finds", "blind"),
    [
        ("5000", "5001", True, True, (False, False)),
        # To the first release whose nginx finds both, and back.
        ("28255", "5000", False, True, (True, False)),
        ("5000", "28255", True, False, (False, True)),
        ("5000", "5000", False, False, (False, False)),
    ],
)
def test_nginx_finds_the_replicas_at_both_ports(
    old: str, new: str, *, running_finds: bool, new_finds: bool, blind: tuple[bool, bool]
) -> None:
    inside = frozenset({"inside"})
    app = Service(Plan(1, "image", inside, new), (replica(1, networks=inside, port=old),))
    running = replica(2, networks=inside, port="", finds_ports=running_finds)
    nginx = Service(Plan(1, "image", inside, finds_ports=new_finds), (running,))
    state = State({"app": app, NGINX: nginx})
    assert (running_nginx_is_blind(state), new_nginx_is_blind(state)) == blind


@pytest.mark.parametrize(
    ("old", "new", "last", "first"),
    [("http", "uwsgi", 1, 0), ("uwsgi", "http", 0, 1), ("uwsgi", "uwsgi", 0, 0), ("http", "http", 0, 0)],
)
def test_nginx_speaks_what_all_replicas_understand(old: str, new: str, last: int, first: int) -> None:
    """While another server replaces the first, they share HTTP; a service without replicas needs no such step."""
    nginx = Service(Plan(1, "image"), (replica(0, protocol=""),))
    app = Service(Plan(2, "image", protocol=new), (replica(1, protocol=old), replica(2, protocol=new)))
    state = State({"app": app, NGINX: nginx})
    assert (changes_to_uwsgi(state), leaves_uwsgi(state)) == (last, first)
    state = State({"app": Service(app.plan, ()), NGINX: nginx})
    assert (changes_to_uwsgi(state), leaves_uwsgi(state)) == (False, False)


OLD = release("1")
OUTSIDE = release("1", network="default")
CHANGES: Mapping[str, tuple[Release, Release]] = {
    "code": (OLD, release("2")),
    "code and fewer": (OLD, release("2", count=1)),
    "code and more": (OLD, release("2", count=5)),
    "fewer": (OLD, release("1", count=1)),
    "more": (OLD, release("1", count=5)),
    "nginx": (OLD, release("1", nginx_image="fleet/nginx:2")),
    "nginx.conf": (OLD, release("1", nginx_conf="2")),
    "all": (OLD, release("2", nginx_image="fleet/nginx:2", nginx_conf="2")),
    "port": (OLD, release("2", port="5001")),
    "port, to an nginx that finds both": (release("1", nginx_finds_ports=False), release("2", port="5001")),
    "port, to an nginx that finds one": (OLD, release("2", port="5001", nginx_finds_ports=False)),
    "network": (OUTSIDE, release("2")),
    "network, back": (OLD, release("2", network="default")),
    "network and port": (OUTSIDE, release("2", port="5001", nginx_image="fleet/nginx:2")),
    "to uWSGI": (OLD, release("2", protocol="uwsgi")),
    "from uWSGI": (release("1", protocol="uwsgi"), release("2")),
    "from uWSGI, nginx too": (release("1", protocol="uwsgi"), release("2", nginx_image="fleet/nginx:2")),
    "from uWSGI, in another network": (release("1", protocol="uwsgi", network="default"), release("2")),
}
IMPOSSIBLE: Mapping[str, tuple[Release, Release]] = {
    "no nginx speaks with both": (OUTSIDE, release("2", protocol="uwsgi")),
    "no nginx speaks with both, on the way back": (release("1", protocol="uwsgi"), release("2", network="default")),
    "no nginx": (OLD, release("2", nginx_image="fleet/nginx:2", nginx_fault="dies")),
}
ALL = ["all", "network and port", "from uWSGI, nginx too"]
"""Changes that between them have every kind of step."""
FAULTS = ["unhealthy", "dies", "restarts", "silent"]


def wanted(of: Release) -> int:
    return int(of["app"]["count"])


def has_lost_nothing(on: Bench, *of: Release) -> None:
    """Check that during the last deploy the number of replicas stayed within what these releases allow."""
    at_first, seen = on.engine.at_first, on.engine.seen
    assert on.engine.wrongs == [], on.story
    assert seen["app"].fewest >= min(at_first["app"].fewest, *map(wanted, of)), on.story
    assert seen["app"].most <= max(at_first["app"].most, *(wanted(one) + on.surge for one in of)), on.story
    if on.engine.can_divert:
        assert seen[NGINX].fewest == at_first[NGINX].fewest, on.story


@pytest.mark.parametrize("surge", [1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_release_takes_over_and_nobody_notices(change: str, surge: int) -> None:
    before, new = CHANGES[change]
    with bench(surge) as on:
        on.has(before)
        assert on.deploy(new) == "", on.story
        has_lost_nothing(on, before, new)
        assert on.runs(new)


@pytest.mark.parametrize("can_divert", [True, False])
def test_the_first_release_takes_traffic(*, can_divert: bool) -> None:
    with bench() as on:
        on.engine.can_divert = can_divert
        assert on.deploy(OLD) == "", on.story
        assert on.runs(OLD)
        assert on.engine.seen["app"].most == wanted(OLD)
        assert on.engine.wrongs == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_first_release_that_does_not_work_says_why(fault: str) -> None:
    with bench() as on:
        failure = on.deploy(release("1", fault=fault))
        assert "There was no release before it." in failure
        assert "did not take traffic" in failure
        assert "last log lines of c" in failure
        assert on.deploy(release("2")) == "", on.story
        assert on.runs(release("2"))


@pytest.mark.parametrize("change", ["code", "code and fewer", *ALL])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_that_does_not_work_goes_and_nobody_notices(change: str, fault: str) -> None:
    before, new = CHANGES[change]
    new = {**new, "app": {**new["app"], "fault": fault}}
    with bench() as on:
        name, failing = on.has(before), on.render(new)
        failure = on.deploy(new)
        assert failure.startswith(f"Release {failing} does not work.\nc"), on.story
        assert failure.endswith(f"Release {name} serves on."), on.story
        has_lost_nothing(on, before, new)
        left = {path.name for path in (on.stack.directory / "releases").iterdir()}
        assert left == {name}
        assert on.engine.images == {one["image"] for one in before.values()}
        assert (on.stack.directory / "static/app/logo.txt").read_text() == before["app"]["image"]
        assert on.runs(before)


@pytest.mark.parametrize("change", IMPOSSIBLE)
def test_what_no_nginx_can_do_leaves_what_serves(change: str) -> None:
    """A trial finds it out before the first replica is replaced."""
    before, new = IMPOSSIBLE[change]
    with bench() as on:
        on.has(before)
        ids = {one.id for one in on.engine.of("app")}
        assert on.deploy(new).endswith("serves on."), on.story
        has_lost_nothing(on, before, new)
        assert on.runs(before)
        assert ids <= set(on.engine.containers)


def test_static_files_that_cannot_be_brought_leave_those_that_serve() -> None:
    """Some have been written by then, and have replaced files of the same name."""
    with bench() as on:
        name = on.has(OLD)
        on.engine.unreadable.add("fleet/app:2")
        assert "2.txt is neither a file nor a folder" in on.deploy(release("2"))
        assert (on.stack.directory / "static/app/logo.txt").read_text() == "fleet/app:1"
        assert on.stack.releases.live() == name
        assert not [one for one in on.engine.steps if one.startswith(("start", "stop"))]


def test_a_replica_that_a_kill_left_on_trial_gets_no_requests() -> None:
    """It gets none even when the next nginx has passed its own trial."""
    broken, new = release("2", fault="unhealthy"), release("3", nginx_image="fleet/nginx:3")
    with bench() as on:
        on.has(OLD)
        on.deploy(broken)
        killed_at = on.engine.steps.index("start app") + 2
        on.deploy(broken, (killed_at, KilledError()))
        assert on.deploy(new) == "", on.story
        has_lost_nothing(on, OLD, new)


def test_nginx_comes_first_where_none_runs() -> None:
    with bench() as on:
        on.has(OLD)
        on.engine.remove([one.id for one in on.engine.of(NGINX)])
        assert on.deploy(release("2")) == "", on.story
        assert on.engine.steps.index("start nginx") < on.engine.steps.index("start app")
        assert on.runs(release("2"))


def test_dead_replicas_are_replaced_together_with_nginx() -> None:
    """A trial of nginx beside them would find no ready replica, and there are no requests to lose."""
    new = release("2", nginx_image="fleet/nginx:2")
    with bench() as on:
        on.has(OLD)
        for one in on.engine.of("app"):
            one.running = False
        assert on.deploy(new) == "", on.story
        assert on.runs(new)


def test_a_configuration_that_nginx_refuses_is_taken_back() -> None:
    new = release("2", nginx_conf="broken")
    with bench() as on:
        on.has(OLD)
        failure = on.deploy(new)
        assert "unknown directive" in failure
        assert failure.endswith("serves on.")
        has_lost_nothing(on, OLD, new)
        assert on.runs(OLD)


def after_each_step(before: Release, new: Release, then: Release, error: Callable[[], BaseException]) -> list[str]:
    """Fail at each step of a deploy in turn, deploy ``then`` afterwards, and return what went wrong.

    Two replicas of each release are enough for every kind of step.
    """
    before, new, then = ({**one, "app": {**one["app"], "count": 2}} for one in (before, new, then))
    with bench() as on:
        on.has(before)
        on.deploy(new)
        steps = ["", *on.engine.steps]
    # A look changes nothing, so that a kill before it is one before the step that comes next; nor does what is written
    # again while something is waited for.
    left_out = ("replace ", "unlink ") if isinstance(error(), FleetError) else ("compare",)
    again = "replace admitted.json.new"
    found = []
    for step, what in enumerate(steps):
        if not what or what.startswith(left_out) or what == steps[step - 1] == again:
            continue
        with bench() as on:
            on.has(before)
            failure = on.deploy(new, (step, error()))
            told = f"{on.story}\n{failure}"
            try:
                has_lost_nothing(on, before, new)
                if failure != "killed":
                    assert on.runs(before) or on.runs(new)
                failure = on.deploy(then)
                told += f"{on.story}\n{failure}"
                has_lost_nothing(on, before, new, then)
                assert on.runs(then)
            except AssertionError as wrong:
                found.append(f"{told}\n{wrong}")
    return found


@pytest.mark.parametrize("change", ALL)
def test_a_kill_at_any_step_is_mended_by_the_next_deploy(change: str) -> None:
    before, new = CHANGES[change]
    assert after_each_step(before, new, new, KilledError) == []


def test_a_kill_at_any_step_is_mended_by_a_deploy_that_changes_nginx_last() -> None:
    """The standby that the kill left serves until then."""
    before, new = CHANGES["all"]
    assert after_each_step(before, new, release("3", protocol="uwsgi"), KilledError) == []


@pytest.mark.parametrize("error", [KilledError, lambda: FleetError("no answer")], ids=["kill", "failure"])
def test_a_failure_on_the_way_back_is_mended(error: Callable[[], BaseException]) -> None:
    before, new = CHANGES["network and port"]
    broken = {**new, "app": {**new["app"], "fault": "silent"}}
    then = {**new, "app": {**new["app"], "image": "fleet/app:3"}}
    assert after_each_step(before, broken, then, error) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("all", lambda: FleetError("no answer")),
        ("network and port", CancelledError),
        ("from uWSGI, nginx too", CancelledError),
    ],
)
def test_a_failure_at_any_step_ends_in_one_release(change: str, error: Callable[[], BaseException]) -> None:
    before, new = CHANGES[change]
    assert after_each_step(before, new, new, error) == []


numbers = st.integers(1, 4)
errors = st.sampled_from([lambda: FleetError("no answer"), CancelledError, KilledError])


def releases(version: str, faults: st.SearchStrategy[str]) -> st.SearchStrategy[Release]:
    return st.builds(
        release,
        st.just(version),
        count=numbers,
        port=st.sampled_from(["5000", "5001"]),
        protocol=st.sampled_from(["http", "uwsgi"]),
        fault=faults,
        nginx_image=st.sampled_from(["fleet/nginx:1", f"fleet/nginx:{version}"]),
        nginx_conf=st.sampled_from(["1", version]),
    )


@dataclass(frozen=True)
class Case:
    """The state of a stack, what is deployed to it, and what goes wrong meanwhile."""

    surge: int
    can_divert: bool
    before: Release
    scaled: int
    """How many replicas there are, whatever the release says."""
    hung: int
    dead: int
    interrupted: tuple[Release, int] | None
    """A deploy that was killed, and before which step."""
    new: Release
    fault: tuple[int, Callable[[], BaseException]] | None


cases = st.builds(
    Case,
    surge=st.integers(1, 3),
    can_divert=st.booleans(),
    before=releases("1", st.just("")),
    scaled=numbers,
    hung=st.integers(0, 2),
    dead=st.integers(0, 2),
    interrupted=st.none() | st.tuples(releases("2", st.just("")), st.integers(1, 80)),
    new=releases("3", st.sampled_from(["", "", *FAULTS])),
    fault=st.none() | st.tuples(st.integers(1, 120), errors),
)


@settings(
    deadline=None, derandomize=False, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(cases)
def test_whatever_happens_it_ends_in_one_release_and_nobody_notices(case: Case) -> None:
    """The stack may be in any state: scaled by hand, with dead or hanging replicas, or left by a kill."""
    with bench(case.surge) as on:
        on.engine.can_divert = case.can_divert
        on.has(case.before)
        on.engine.scale({"app": case.scaled}, 60)
        on.engine.settle()
        running = on.engine.of("app")
        for one in running[: case.hung]:
            one.hangs_until = on.engine.clock.time() + 3
        for one in running[case.hung : case.hung + case.dead]:
            one.running = False
        known = [case.before]
        if case.interrupted:
            known.insert(0, case.interrupted[0])
            event(f"before it: {on.deploy(known[0], (case.interrupted[1], KilledError())) or 'done'}")
            has_lost_nothing(on, *known)
        told = on.story
        failure = on.deploy(case.new, case.fault and (case.fault[0], case.fault[1]()))
        told += on.story
        event(f"first: {failure[:20]}")
        has_lost_nothing(on, case.new, *known)
        if not failure:
            assert on.runs(case.new), told
        elif failure.endswith("serves on."):
            assert any(map(on.runs, known)), told
        failure = on.deploy(case.new)
        told += on.story
        event(f"then: {failure[:20]}")
        has_lost_nothing(on, case.new, *known)
        assert any(map(on.runs, known)) if case.new["app"]["fault"] else on.runs(case.new), told
