"""Services are changed, end and die, and no request in any of the three servers and no row of the database is lost."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from testinfra.host import Host

from bench.app import edit
from bench.load import Load
from bench.playbook import playbook
from bench.stack import CLIENTS, Stack, assert_nothing_lost
from tests.live_services import PROBE, PROBES, SERVICES, changed, find

RATE = 40
"""Requests per second to each service."""
UNDER_WAY_S = 5
KEPT_OUT_S = 4
THREADS = 4
"""Threads in each of these replicas."""
BUSY_S = 20
"""The health check asks every 10 s, and ends a server that hangs 6 s later."""
ENDED_S = 20
GONE_UNSEEN = 2
"""Requests, one after the other, that may still be sent to replicas that are gone: each waits at least a second for its
connection, and the balancer strikes a replica off after two looks that are not answered within 0.8 s."""


@contextmanager
def load_on_all(stack: Stack) -> Iterator[dict[str, Load]]:
    """Send requests to every service during a block."""
    with ExitStack() as loads:
        yield {name: loads.enter_context(find(stack, name).under_load(RATE)) for name in SERVICES}


def ids(stack: Stack, name: str) -> set[str]:
    """List the replicas of a service."""
    return {replica.id for replica in stack.containers(name)}


def started(stack: Stack, name: str) -> set[str]:
    """Tell since when each replica of a service runs."""
    return {one["State"]["StartedAt"] for one in stack.inspect(name)}


def deploy(**variables: object) -> str:
    """Deploy, and return the output."""
    deployed = playbook("playbooks/deploy.yml", "--extra-vars", json.dumps(variables))
    assert deployed.ok, deployed.said
    return deployed.said


@pytest.fixture
def version_2(tmp_path: Path) -> dict[str, object]:
    """Return the services with another version of the probe, at another port."""
    folder = tmp_path / "probe"
    shutil.copytree(PROBE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    edit(folder / "probe.py", "VERSION = 1", "VERSION = 2")
    return {"stack_services": changed(**{name: {"context": str(folder), "port": 5001} for name in PROBES})}


def test_data_and_requests_outlive_deploy_and_rollback(stack: Stack, version_2: dict[str, object]) -> None:
    """All replicas of three services are replaced twice; the database stays, and is migrated once for each deploy."""
    api = find(stack, "api")
    assert api.send("POST", "/guests/jane").status == 200
    before = json.loads(api.get("/guests").text)
    database, replicas, untouched = ids(stack, "db"), {name: ids(stack, name) for name in PROBES}, ids(stack, "app")
    with load_on_all(stack) as forth:
        said = deploy(**version_2)
    assert "the database is as this version needs it" in said
    assert {json.loads(find(stack, name).get("/whoami").text)["version"] for name in PROBES} == {2}
    after = json.loads(api.get("/guests").text)
    assert after == before | {"migrations": before["migrations"] + 1}
    with load_on_all(stack) as back:
        gone_back = playbook("playbooks/rollback.yml")
    assert gone_back.ok, gone_back.said
    assert {json.loads(find(stack, name).get("/whoami").text)["version"] for name in PROBES} == {1}
    assert json.loads(api.get("/guests").text) == after
    assert (ids(stack, "db"), ids(stack, "app")) == (database, untouched)
    assert all(ids(stack, name).isdisjoint(replicas[name]) for name in PROBES)
    for load in [*forth.values(), *back.values()]:
        assert_nothing_lost(load)


@pytest.mark.parametrize("name", PROBES)
def test_stopped_replica_finishes_what_it_has_begun(host: Host, stack: Stack, name: str) -> None:
    """It is stopped by hand: nginx sends nothing new, the requests under way are answered, and then it ends."""
    door = find(stack, name)
    with ThreadPoolExecutor() as pool, door.under_load(RATE) as load:
        # One for each thread of both replicas would block the health check as well.
        late = [pool.submit(door.get, f"/sleep/{UNDER_WAY_S}") for _ in range(4)]
        time.sleep(1)
        victim = stack.containers(name)[0].id
        host.check_output(f"docker stop {victim}")
        answers = [one.result() for one in late]
    host.check_output(f"docker start {victim}")
    assert [answer.status for answer in answers] == [200] * len(answers)
    # Of which some were its own.
    assert victim in {json.loads(answer.text)["container"] for answer in answers}
    assert_nothing_lost(load)
    stack.wait_for("it takes its share again", lambda: victim in door.ask(10))


def test_busy_replicas_are_left_alone(stack: Stack) -> None:
    """Streams occupy all threads for longer than the health check waits, and each of them arrives whole."""
    before = {name: started(stack, name) for name in PROBES}
    streams = [name for name in PROBES for _ in range(len(ids(stack, name)) * THREADS)]
    with ThreadPoolExecutor(len(streams)) as pool:
        answers = list(pool.map(lambda name: find(stack, name).get(f"/stream/{BUSY_S}?unbuffered"), streams))
    assert {answer.text[-4:] for answer in answers} == {"end\n"}
    assert {name: started(stack, name) for name in PROBES} == before


@pytest.mark.long
@pytest.mark.parametrize("name", PROBES)
def test_replica_that_hangs_is_ended(host: Host, stack: Stack, name: str) -> None:
    """The engine restarts a replica whose processes are all stopped, so that none can report it.

    A health check that is just running is not stopped: the engine would wait until it times out.
    """
    victim = stack.containers(name)[0].id
    before = started(stack, name)
    stop = f"date +%s; kill -STOP $(docker top {victim} -eo pid,args | awk 'NR > 1 && !/healthy/ {{print $1}}')"
    stopped = int(host.check_output(stop))
    stack.wait_for("the engine has started it anew", lambda: started(stack, name) != before)
    ended = host.check_output(f"date +%s -d $(docker inspect --format '{{{{.State.FinishedAt}}}}' {victim})")
    assert int(ended) - stopped <= ENDED_S


@pytest.mark.long
@pytest.mark.parametrize("name", PROBES)
def test_killed_and_frozen_replicas_cost_what_is_in_flight(host: Host, stack: Stack, name: str) -> None:
    """A server's process dies, then a replica gives no answer; each time the other replica takes over."""
    door = find(stack, name)
    victim = stack.containers(name)[0].id
    with door.under_load(RATE) as load:
        host.check_output(f"docker kill --signal KILL {victim} && docker start {victim}")
        stack.wait_for("it answers again", lambda: victim in door.ask(10))
    report = load.report()
    assert report.planned - report.ok <= CLIENTS, report.examples
    assert report.failures("GET") == {}, report.examples
    with door.under_load(RATE) as load:
        host.check_output(f"docker pause {victim}")
        time.sleep(KEPT_OUT_S)
        others = set(door.ask(10))
        host.check_output(f"docker unpause {victim}")
        stack.wait_for("it answers again", lambda: victim in door.ask(10))
    assert victim not in others
    report = load.report()
    assert report.planned - report.ok <= CLIENTS, report.examples


def test_service_without_a_replica_fails_alone(host: Host, stack: Stack) -> None:
    """Its own requests get 503, and the other services do not notice."""
    others = [name for name in SERVICES if name != "tools"]
    door, victims = find(stack, "tools"), " ".join(ids(stack, "tools"))
    with ExitStack() as entered:
        loads = [entered.enter_context(find(stack, name).under_load(RATE)) for name in others]
        entered.callback(host.check_output, f"docker start {victims}")
        host.check_output(f"docker stop {victims}")
        # Replicas that are all told to stop serve until they are gone, so nobody looked away before.
        statuses = [door.get("/whoami").status for _ in range(GONE_UNSEEN + 2)]
        assert statuses.count(504) <= GONE_UNSEEN, statuses
        assert statuses == sorted(statuses, reverse=True), "once it is known that none is left it stays known"
        assert set(statuses) <= {503, 504}, statuses
        host.check_output(f"docker start {victims}")
        stack.wait_for("it answers again", lambda: door.get("/whoami").status == 200)
    for load in loads:
        assert_nothing_lost(load)


@pytest.mark.long
def test_each_service_is_scaled_by_its_own_number(stack: Stack) -> None:
    """Two services are scaled at once, and the third keeps its number."""
    tools, live = ids(stack, "tools"), ids(stack, "live")
    with load_on_all(stack) as loads:
        up = playbook("playbooks/scale.yml", "--extra-vars", "api=1 tools=3")
        assert up.ok, up.said
        assert [len(ids(stack, name)) for name in PROBES] == [1, 3, 2]
        down = playbook("playbooks/scale.yml", "--extra-vars", "api=2 tools=2")
        assert down.ok, down.said
    assert (ids(stack, "tools") & tools, ids(stack, "live")) == (tools, live)
    for load in loads.values():
        assert_nothing_lost(load)
