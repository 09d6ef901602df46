"""The jobs that change what runs: a deploy, a rollback, another number of replicas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.job import Job, Progress
from fleet.rollout import RollOut, prepare
from fleet.stack import Stack
from fleet.system import FleetError


def is_deployed(stack: Stack, release: str, last: Progress) -> bool:
    """Tell whether a release runs, all of it, and nothing else."""
    worked = {one.id for one in stack.releases.kept()}
    # A job that was killed may have left all running, but not what it meant to remove.
    if last.was_killed or stack.releases.live() != release or release not in worked:
        return False
    view = stack.inspect(release)
    return view.as_wanted and view.nginx_current


def deploy(stack: Stack, job: Job, release: str, *, prepares: bool) -> Mapping[str, Any]:
    """Bring a release to life, unless it runs already.

    If it ``prepares``, the pre_deploy of each service runs first. A rollback does not: what that changed in a database
    stays.

    Raises:
        FleetError: It does not work; the message says what serves.
    """
    if is_deployed(stack, release, job.last):
        return {"changed": False, "msg": f"Release {release} runs already."}
    outcome = "failed"
    try:
        # Not when the release is the live one already and only something of it has to be mended.
        if prepares and release != stack.releases.live():
            prepare(stack, release, job.say)
        RollOut(stack, job.say).run(release)
        outcome = "live"
        stack.releases.note_that_it_works(release, job.who)
        stack.prune()
    finally:
        stack.proxy.open_gate()
        stack.audit(f"{release} {outcome}", job.who)
    return {"msg": f"Release {release} is live."}


def earlier_release(stack: Stack, release: str) -> str:
    """Choose the release to go back to; without an id, the newest one that worked and is not live.

    Raises:
        FleetError: There is no such release; the message lists those that there are.
    """
    live, kept = stack.releases.live(), stack.releases.kept()
    chosen = release or next((one.id for one in kept if one.id != live), "")
    if chosen not in {one.id for one in kept}:
        listed = [f"{one.id}  {one.activated} UTC  by {one.by}{' (live)' if one.id == live else ''}" for one in kept]
        allowed = "\n".join(["Allowed are:", *listed])
        raise FleetError(f"release is {chosen or 'not given'}: no such release can be gone back to. {allowed}")
    return chosen


def changes_number(stack: Stack, numbers: Mapping[str, int]) -> bool:
    """Tell whether there are not as many replicas of each service as there shall be."""
    known = stack.engine.compare(None).applications
    for name, count in numbers.items():
        if name not in known:
            raise FleetError(f"{name} is no service: allowed are {', '.join(known)}")
        if count < 1:
            raise FleetError(f"{name} is {count}: allowed is a whole number from 1")
    return any(len(known[name].replicas) != count for name, count in numbers.items())


def scale(stack: Stack, job: Job, numbers: Mapping[str, int]) -> Mapping[str, Any]:
    """Start or drain replicas until there are so many of each service, until the next deploy."""
    if not changes_number(stack, numbers):
        return {"changed": False}
    asked = ", ".join(f"{name}={count}" for name, count in numbers.items())
    try:
        stack.engine.scale(numbers, stack.settings.start_seconds)
    finally:
        stack.audit(f"scale {asked}", job.who)
    return {"msg": f"{asked} until the next deploy."}
