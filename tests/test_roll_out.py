"""What the roll-out decides: it must come to its end, never below the wanted number, never above it and the surge."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from roles.stack.action_plugins.roll_out import (
    ActionModule,
    Step,
    changes_to_uwsgi,
    leaves_uwsgi,
    new_nginx_is_blind,
    next_step,
    running_nginx_is_blind,
)


def replica(number: int, **changed: Any) -> dict[str, Any]:
    """Describe a container as stack_machine does: an old one that serves, unless changed."""
    serving = {"fresh": False, "running": True, "ready": True, "since": f"{number:04}", "port": "5000"}
    return {"id": f"c{number}"} | serving | changed


def replicas(old: int, fresh: int = 0) -> list[dict[str, Any]]:
    """Describe a number of old and of fresh containers."""
    return [replica(number, fresh=number >= old) for number in range(old + fresh)]


@pytest.mark.parametrize("wanted", [1, 2, 3, 5])
@pytest.mark.parametrize("surge", [1, 2, 5])
@pytest.mark.parametrize("old", [1, 3, 7])
@pytest.mark.parametrize("fresh", [0, 1, 3])
def test_the_change_ends_within_its_bounds(wanted: int, surge: int, old: int, fresh: int) -> None:
    """Fewer than wanted are lost requests; more than the surge may not fit into a small machine's memory."""
    running, numbers = replicas(old, fresh), count(100)
    least, most = min(wanted, len(running)), max(wanted + surge, len(running))
    for _ in range(100):
        step = next_step(wanted, surge, running)
        if step is None:
            assert all(one["fresh"] for one in running)
            assert len(running) >= wanted
            return
        if step.action == "start":
            assert step.count > len(running)
            running += [replica(next(numbers), fresh=True) for _ in range(step.count - len(running))]
        else:
            running = [one for one in running if one["id"] not in step.replicas]
        assert least <= len(running) <= most
    pytest.fail("it never ends")


def test_only_numbers_differ_is_nothing_to_roll_out() -> None:
    """Compose adds and drains replicas by itself; only replacing is ours."""
    assert next_step(5, 1, replicas(0, 2)) is None
    assert next_step(1, 1, replicas(0, 2)) is None


def test_dead_ones_go_first() -> None:
    """What an interrupted run left behind takes the place of a replica that could serve."""
    dead = replica(7, running=False)
    assert next_step(2, 1, [*replicas(2), dead]) == Step("remove", replicas=("c7",))


def test_a_replica_that_takes_no_traffic_is_retired_first() -> None:
    """Nobody misses it; the next to go is the oldest."""
    hung = replica(2, ready=False)
    assert next_step(2, 1, [*replicas(2), hung]) == Step("retire", replicas=("c2",))
    assert next_step(2, 1, replicas(3)) == Step("retire", replicas=("c0",))


def service(networks: str, *running: str) -> dict[str, Any]:
    """Describe a service: the networks that it shall be in, and those of each container that runs."""
    replicas = [replica(number, networks=one.split()) for number, one in enumerate(running)]
    return {"wanted": 1, "networks": networks.split(), "port": "5000", "replicas": replicas}


@pytest.mark.parametrize(
    ("app", "nginx", "running_is_blind", "new_is_blind"),
    [
        pytest.param(service("inside"), service("default inside"), False, False, id="first deploy"),
        pytest.param(service("default", "default"), service("default", "default"), False, False, id="as ever"),
        pytest.param(service("inside", "default"), service("default inside", "default"), True, False, id="moves"),
        pytest.param(
            service("inside", "default", "inside"),
            service("default inside", "default inside"),
            False,
            False,
            id="half way",
        ),
        pytest.param(service("default", "inside"), service("default", "default inside"), False, True, id="goes back"),
        pytest.param(
            service("inside outside", "inside"), service("default inside", "default inside"), False, False, id="way out"
        ),
        pytest.param(service("inside"), service("default inside", "default"), False, False, id="a new service"),
    ],
)
def test_nginx_reaches_the_replicas_all_the_time(
    app: dict[str, Any], nginx: dict[str, Any], *, running_is_blind: bool, new_is_blind: bool
) -> None:
    """A service that moves to another network is followed by an nginx that is in both."""
    services = {"app": app, "nginx": nginx}
    assert running_nginx_is_blind(services) is running_is_blind
    assert new_nginx_is_blind(services) is new_is_blind


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
    """While a service moves to another port, an nginx serves that looks at both."""
    app = service("inside", "inside") | {"port": new}
    nginx = service("inside", "inside") | {"port": "", "finds_ports": new_finds}
    app["replicas"][0]["port"] = old
    nginx["replicas"][0] |= {"port": "", "finds_ports": running_finds}
    services = {"app": app, "nginx": nginx}
    assert (running_nginx_is_blind(services), new_nginx_is_blind(services)) == blind


@pytest.mark.parametrize(
    ("old", "new", "last", "first"),
    [
        ("gunicorn", "uwsgi", True, False),
        ("uwsgi", "gunicorn", False, True),
        ("uwsgi", "granian", False, True),
        ("granian", "gunicorn", False, False),
        ("uwsgi", "uwsgi", False, False),
        # Of a version of this project that knew no other.
        ("", "gunicorn", False, False),
        ("", "uwsgi", True, False),
    ],
)
def test_nginx_speaks_what_all_replicas_understand(old: str, new: str, *, last: bool, first: bool) -> None:
    """While one server takes the other's place, that is HTTP; a service that nothing runs of needs neither."""
    nginx = {"server": "", "replicas": [replica(0, server="")]}
    services = {"nginx": nginx, "app": {"server": new, "replicas": [replica(1, server=old), replica(2, server=new)]}}
    assert (changes_to_uwsgi(services), leaves_uwsgi(services)) == (last, first)
    services["app"]["replicas"] = []
    assert (changes_to_uwsgi(services), leaves_uwsgi(services)) == (False, False)


def test_static_files_that_cannot_be_brought_leave_those_that_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are written by then, in the place of files of the same name; the reason is told all the same."""
    plugin, brought = object.__new__(ActionModule), []
    plugin._task = SimpleNamespace(args={"release": "new"}, check_mode=False)

    def bring(release: str) -> None:
        brought.append(release)
        raise AnsibleActionFail(f"{release} has a link")

    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(plugin, "_last_that_worked", lambda: "old")
    monkeypatch.setattr(plugin, "_bring_static", bring)
    with pytest.raises(AnsibleActionFail, match="new has a link"):
        plugin.run(None, {})
    assert brought == ["new", "old"]


def test_nothing_stays_of_a_release_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the machine nor among the files that nginx serves."""
    plugin, asked = object.__new__(ActionModule), []
    plugin._task = SimpleNamespace(args={"directory": "/opt/fleet", "keep": "5"})
    plugin._vars = {"inventory_hostname": "i-1"}

    def run(module: str, given: dict[str, Any]) -> dict[str, Any]:
        asked.append((module, given))
        return {"static": {"app": ["fleet/app:old"]}}

    monkeypatch.setattr(plugin, "_run", run)
    monkeypatch.setattr(plugin, "_put_back", lambda release: asked.append(("put back", release)))
    assert plugin._go_back("r1") == "Release r1 serves on."
    assert asked == [
        ("put back", "r1"),
        ("stack_machine", {"action": "prune", "directory": "/opt/fleet", "count": 5}),
        ("static_files", {"path": "/opt/fleet/static", "action": "forget", "keep": {"app": ["fleet/app:old"]}}),
    ]
