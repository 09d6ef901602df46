"""Replaces the replicas of the release before, a few at a time.

Start new, wait until it is healthy and nginx sends requests to it, then drain and remove an old one. A new nginx is
tried first, beside the one that serves, and takes its place last, while another of its kind serves in between. When
anything fails, what was already replaced is put back, and the release before goes on serving.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fleet.engine.base import Replica, Service, State
from fleet.proxy import can_divert
from fleet.stack import Stack, View
from fleet.system import CancelledError, FleetError, LateError, last_lines

HANDOVER = "another new one serves while the old one finishes what it has and is replaced"
ALONE = (
    "is replaced now, about a second without answers; another can serve where root has nft, on an instance for example"
)
UWSGI = "uwsgi"
RELOAD_S = 10
"""How long nginx may take to read its configuration."""
POLL_S = 0.25

Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """What to do next with a service: ``start`` so that there are ``count``, ``retire`` or ``remove`` replicas."""

    action: str
    count: int = 0
    replicas: tuple[str, ...] = ()


def next_step(wanted: int, surge: int, replicas: Sequence[Replica]) -> Step | None:
    """Decide what brings a service nearer to running only fresh replicas.

    There are never fewer than ``wanted`` replicas, unless there were fewer to begin with, and never more than ``surge``
    above that or above what there were.

    Returns:
        The next step; None when no old replica is left. Mere numbers are the engine's business, unless one takes no
            traffic.
    """
    dead = tuple(one.id for one in replicas if not one.running)
    if dead:
        # The engine counts them, and would stop one that serves for each that is too many.
        return Step("remove", replicas=dead)
    old = [one for one in replicas if not one.fresh]
    # The engine goes by age where there are too many, not by who takes traffic.
    idle = [one for one in replicas if not one.ready and len(replicas) > wanted]
    if not (old or idle):
        return None
    missing = wanted - (len(replicas) - len(old))
    room = wanted + surge - len(replicas)
    if missing > 0 and room > 0:
        return Step("start", count=len(replicas) + min(missing, room))
    # One that takes no traffic is missed by nobody. Those that are more than wanted drain at the same time.
    first = sorted(old or idle, key=lambda one: (one.ready, one.since))[: max(len(replicas) - wanted, 1)]
    return Step("drain", replicas=tuple(one.id for one in first))


def running_nginx_is_blind(state: State) -> bool:
    """Tell whether the nginx that serves would not find the replicas that are to come.

    So it is when services move to other networks, or to another port and nginx is of a release that knows only one for
    each service. The new one then has to take its place first.
    """
    nginx = state.nginx.replicas
    if _changes_port(state) and not all(one.finds_ports for one in nginx):
        return True
    running = [one for one in state.applications.values() if one.replicas]
    return not all(_meets(one.plan.networks, nginx) for one in running)


def new_nginx_is_blind(state: State) -> bool:
    """Tell whether the nginx that is to come would not find the replicas that run.

    So it is on the way back. The replicas then have to change first.
    """
    nginx = state.nginx.plan
    if _changes_port(state) and not nginx.finds_ports:
        return True
    return not all(_meets(nginx.networks, one.replicas) for one in state.applications.values())


def changes_to_uwsgi(state: State) -> bool:
    """Tell whether a service whose server speaks only HTTP is to get one that speaks uwsgi.

    A replica of that understands nginx in HTTP too. So nginx speaks uwsgi last.
    """
    return any(one.plan.protocol == UWSGI != old.protocol for one in state.services.values() for old in one.replicas)


def leaves_uwsgi(state: State) -> bool:
    """Tell whether a service whose server speaks uwsgi is to get one that does not: nginx speaks HTTP first then."""
    return any(old.protocol == UWSGI != one.plan.protocol for one in state.services.values() for old in one.replicas)


def _meets(networks: Collection[str], replicas: Sequence[Replica]) -> bool:
    """Tell whether a container could reach all of these."""
    return not any(one.networks.isdisjoint(networks) for one in replicas)


def _changes_port(state: State) -> bool:
    """Tell whether replicas that run listen elsewhere than those that are to come."""
    return any(old.port != one.plan.port for one in state.applications.values() for old in one.replicas)


class RollOut:
    """One roll-out of a stack."""

    def __init__(self, stack: Stack, say: Say) -> None:
        """Say where, and how to tell of each step."""
        self._stack = stack
        self._engine = stack.engine
        self._proxy = stack.proxy
        self._settings = stack.settings
        self._say = say
        self._proved: set[str] = set()

    def run(self, release: str) -> None:
        """Bring a release to life.

        Raises:
            FleetError: It does not take traffic; the message says whether the release before serves on.
        """
        before = self._stack.releases.last_that_worked()
        try:
            self._stack.bring_static(release)
        except (FleetError, CancelledError):
            if before:
                # Some may have the place of files of the same name, which the pages that serve on ask for.
                with suppress(FleetError):
                    self._stack.bring_static(before)
            raise
        try:
            self._activate(release)
            self._change(release)
        except (FleetError, CancelledError) as failure:
            kept = self._go_back(before, release) if before not in ("", release) else "There was no release before it."
            raise FleetError(f"Release {release} does not work.\n{failure}\n{kept}") from failure

    def _activate(self, release: str) -> None:
        """Make a release the live one; nginx knows before where its replicas will listen."""
        self._proxy.note_ports(self._engine.compare(release))
        if self._stack.releases.live() != release:
            self._stack.releases.activate(release)

    def _change(self, release: str) -> None:
        late = self._nginx_is_last(release)
        view = self._end_stale_diversion(release)
        # Where the one that runs finds no replica, one that is tried would find none either.
        tries_first = not late and self._serves(view.state.nginx)
        if not late and (view.has_standby or not view.state.nginx.runs) and self._all_are_healthy(view.state):
            # Nobody is answered, or by one that may be of any release.
            self._renew_nginx(view)
        elif tries_first:
            self._try_nginx(release)
        view = self._stack.inspect(release)
        if running_nginx_is_blind(view.state):
            self._say("nginx: the new one takes the old one's place first, to find the new replicas")
            self._renew_nginx(view)
        self._leave_uwsgi(release)
        self._replace_all(release)
        if not tries_first:
            self._try_nginx(release)
        self._finish(release)

    def _nginx_is_last(self, release: str) -> bool:
        """Tell whether the nginx of a release has no use for some of the replicas that run."""
        state = self._stack.inspect(release).state
        return new_nginx_is_blind(state) or changes_to_uwsgi(state)

    def _end_stale_diversion(self, release: str) -> View:
        """End what a run that was interrupted, or a step that failed, left beside an nginx that serves."""
        view = self._stack.inspect(release)
        if not (view.has_standby and self._serves(view.state.nginx)):
            return view
        self._proxy.end_diversion()
        return self._stack.inspect(release)

    def _serves(self, nginx: Service) -> bool:
        """Tell whether nginx runs and has found replicas, which one that has just been started has not."""
        return any(one.running and not self._engine.health_failure(one.id) for one in nginx.replicas)

    def _all_are_healthy(self, state: State) -> bool:
        """Tell whether there are replicas to be balanced, and nothing that the engine would wait for in vain."""
        replicas = [one for service in state.applications.values() for one in service.replicas]
        return bool(replicas) and all(one.running and not self._engine.health_failure(one.id) for one in replicas)

    def _finish(self, release: str) -> None:
        view = self._stack.inspect(release)
        if not view.state.nginx.is_fresh:
            self._renew_nginx(view)
        if not self._stack.inspect(release).as_wanted:
            self._bring_up(release, replace=True)
        if view.has_standby:
            self._proxy.end_diversion()
        self._have_nginx_read(release)

    def _have_nginx_read(self, release: str) -> None:
        """Have nginx run with the configuration of the release."""
        if self._stack.inspect(release).nginx_current:
            return
        self._proxy.reload()
        # `nginx -s reload` says 0 also when the master then keeps the old configuration.
        deadline = time.monotonic() + RELOAD_S
        while not self._stack.inspect(release).nginx_current:
            if time.monotonic() > deadline:
                raise FleetError(f"nginx did not read its new configuration within {RELOAD_S} s")
            time.sleep(POLL_S)

    def _renew_nginx(self, view: View) -> None:
        """Put a new nginx in the place of the old one, and leave the services that it depends on as they are."""
        nginx = view.state.nginx
        if nginx.runs and not view.has_standby:
            self._say(f"nginx: {HANDOVER if self._divert_to_standby() else ALONE}")
        self._proxy.drain([one.id for one in nginx.replicas])
        # Not alone: Compose would count it as another configuration, and replace it once more at the end.
        self._engine.bring_up(["nginx"], replace=False, seconds=self._settings.start_seconds)
        self._proxy.end_diversion()
        self._say("nginx: the new one serves")

    def _divert_to_standby(self) -> bool:
        """Start the standby and lead new connections to it, where possible; tell whether it serves."""
        if not can_divert():
            return False
        self._start_standby(reachable=True)
        if not self._proxy.divert():
            self._proxy.end_diversion()
            return False
        return True

    def _start_standby(self, *, reachable: bool) -> None:
        name = self._engine.standby()
        try:
            self._engine.start_standby(reachable=reachable)
            self._wait([name])
        except BaseException:
            self._engine.remove([name])
            raise

    def _leave_uwsgi(self, release: str) -> None:
        """Have nginx speak HTTP where it speaks uwsgi, before the first replica comes that does not understand it."""
        view = self._stack.inspect(release)
        nginx = view.state.nginx
        if not (leaves_uwsgi(view.state) and nginx.runs) or view.nginx_current:
            return
        self._say("nginx: it speaks HTTP first, which the replicas understand too")
        if nginx.is_fresh:
            self._have_nginx_read(release)
        else:
            self._renew_nginx(view)

    def _bring_up(self, release: str, services: Sequence[str] = (), *, replace: bool) -> None:
        """Have the engine start what is missing and remove what is left over, or only bring these services up."""
        try:
            self._engine.bring_up(services, replace=replace, seconds=self._settings.start_seconds)
        except FleetError as failure:
            raise FleetError(f"{failure}\n{self._reason_for_no_traffic(release)}".rstrip()) from failure

    def _reason_for_no_traffic(self, release: str) -> str:
        """Give the reason and the last log lines of a replica that takes no traffic, which the engine does not show."""
        for service in self._stack.inspect(release).state.applications.values():
            for replica in service.replicas:
                # A ready one too: it may not be healthy.
                try:
                    self._wait([replica.id], seconds=0)
                except FleetError as failure:
                    return str(failure)
        return ""

    def _try_nginx(self, release: str) -> None:
        """Try an nginx of another image or other settings; a changed nginx.conf is only reloaded.

        So a version of it that does not start, or finds no replica, costs nobody an answer.
        """
        view = self._end_stale_diversion(release)
        state = view.state
        # A standby that still serves would have to go for the trial.
        if view.has_standby or state.nginx.is_fresh or not state.nginx.runs:
            return
        new = [name for name, service in state.applications.items() if not service.replicas]
        if new:
            # nginx is healthy only when it finds a replica of every service.
            self._bring_up(release, new, replace=True)
        self._start_standby(reachable=False)
        self._engine.remove([self._engine.standby()])
        self._say("nginx: the new one is healthy in a trial and will take the old one's place")

    def _replace_all(self, release: str) -> None:
        for service in self._engine.plan(release):
            if service != "nginx":
                self._replace(service, release)

    def _replace(self, name: str, release: str) -> None:
        while True:
            service = self._stack.inspect(release).state.services[name]
            step = next_step(service.plan.count, self._settings.surge, service.replicas)
            if step is None:
                return
            fresh = [one.id for one in service.replicas if one.fresh and one.running]
            since = time.monotonic()
            if step.action == "start":
                started = self._start(name, step.count)
                self._say(f"{name}: started {', '.join(started)}, replica {len(fresh) + 1} of {service.plan.count}")
                self._wait_for(name, self._unproved(service) + started)
                self._say(f"{name}: {', '.join(started)} takes traffic after {time.monotonic() - since:.1f} s")
            else:
                self._wait_for(name, [one for one in self._unproved(service) if one not in step.replicas])
                done = self._take_away(step)
                self._say(f"{name}: {done} {', '.join(step.replicas)} in {time.monotonic() - since:.1f} s")

    def _start(self, service: str, count: int) -> list[str]:
        """Start replicas beside those that run; nginx sends them nothing before they are healthy."""
        self._proxy.gate_traffic(())
        return self._engine.start(service, count)

    def _take_away(self, step: Step) -> str:
        if step.action == "drain":
            self._engine.stop(step.replicas)
            return "drained and removed"
        self._engine.remove(step.replicas)
        return "removed the dead"

    def _unproved(self, service: Service) -> list[str]:
        """List the fresh replicas that take no traffic now, or that another run started, which may not have waited."""
        fresh = [one for one in service.replicas if one.fresh and one.running]
        return [one.id for one in fresh if not (one.ready and one.id in self._proved)]

    def _wait_for(self, service: str, replicas: Sequence[str]) -> None:
        try:
            self._wait(replicas)
            self._proved.update(replicas)
        except FleetError:
            self._say(f"{service}: {', '.join(replicas)} does not take traffic")
            raise

    def _wait(self, replicas: Sequence[str], seconds: int | None = None) -> None:
        """Wait until containers are healthy and take traffic.

        Raises:
            FleetError: One never did; the message has the reason and its last log lines.
        """
        seconds = self._settings.start_seconds if seconds is None else seconds
        deadline = time.monotonic() + seconds
        # Others than these as well: on the way back the one that does not work is still there.
        on_trial = self._proxy.unadmitted(self._engine.replicas())
        for replica in replicas:
            reason = self._not_ready_after(deadline, replica, on_trial)
            if reason:
                log = self._engine.log_tail(replica)
                raise FleetError(
                    f"{replica} did not take traffic within {seconds} s: {reason}\nIts last log lines:\n{log}"
                )
        if not on_trial:
            self._proxy.open_gate()

    def _not_ready_after(self, deadline: float, replica: str, on_trial: set[str]) -> str:
        """Wait until a container takes traffic; say why it does not at the deadline, empty when it does."""
        while True:
            try:
                reason = self._not_ready_reason(replica, on_trial)
            except FleetError as hopeless:
                return str(hopeless)
            if not reason or time.monotonic() > deadline:
                return reason
            time.sleep(POLL_S)
            if on_trial:
                self._proxy.gate_traffic(on_trial)

    def _not_ready_reason(self, replica: str, on_trial: set[str]) -> str:
        """Say what a container lacks that takes no traffic yet; empty when it does. One that never will is an error.

        Of the containers that nginx must not send anything to, ``on_trial`` loses this one when it is healthy.
        """
        found = self._engine.replicas([replica])
        if not found:
            raise FleetError("it is gone")
        (one,) = found
        if not one.running:
            raise FleetError(f"it ended with status {one.exit_code}")
        if one.restarts:
            raise FleetError("it ended, and was started again")
        try:
            unhealthy = self._engine.health_failure(one.id)
        except LateError as late:
            unhealthy = str(late)
        if unhealthy:
            return f"not healthy: {unhealthy}"
        if one.id in on_trial:
            on_trial.remove(one.id)
            self._proxy.gate_traffic(on_trial)
        known = self._proxy.status().get("services", {}).get(one.service)
        if known is None:
            return ""
        seen = [known["replicas"][address] for address in one.addresses if address in known["replicas"]]
        if not seen:
            return "nginx has not seen it yet"
        return "" if seen[0]["ready"] else f"not ready: {seen[0].get('why', 'no answer')}"

    def _go_back(self, release: str, failed: str) -> str:
        """Put the release before back: it needs no new replica where none of its own was retired yet."""
        self._say(f"going back to release {release}")
        try:
            try:
                self._put_back(release)
            except (FleetError, CancelledError):
                # The engine may have been away for a moment; whoever cancels wants just this, and can do it once.
                self._put_back(release)
        except FleetError as failure:
            return f"Going back to release {release} failed as well.\n{failure}"
        try:
            # The release that does not work, its secrets, images and static files are of no use to anybody.
            self._stack.prune(failed)
        except (FleetError, CancelledError) as failure:
            return f"Release {release} serves on. The other one could not be removed.\n{failure}"
        return f"Release {release} serves on."

    def _broken(self, service: Service) -> list[str]:
        """List the replicas of the release that failed that take no traffic; without nginx, those that never will."""
        is_balanced = bool(self._proxy.status())
        return [
            one.id
            for one in service.replicas
            if not one.fresh
            and not (one.running and (one.ready if is_balanced else not self._engine.health_failure(one.id)))
        ]

    def _put_back(self, release: str) -> None:
        self._activate(release)
        view = self._end_stale_diversion(release)
        # Before nginx, which the engine brings up only with all that it depends on.
        for service in view.state.applications.values():
            self._engine.remove(self._broken(service))
        nginx = view.state.nginx
        if not (nginx.is_fresh and nginx.runs) and not self._nginx_is_last(release):
            # Early, because while it is broken nobody is answered.
            self._renew_nginx(view)
        self._leave_uwsgi(release)
        self._replace_all(release)
        self._finish(release)
        # Last, because the replicas are needed more.
        self._stack.bring_static(release)


def prepare(stack: Stack, release: str, say: Say) -> None:
    """Run the command of each service that has to succeed before a release takes over.

    Raises:
        FleetError: One failed or took too long; the message has its last lines. Nothing was replaced.
    """
    settings = stack.settings
    for service, command in settings.pre_deploy.items():
        what = f"pre_deploy of {service} ({' '.join(command)})"
        try:
            answer = stack.engine.run_once(release, service, command, settings.pre_deploy_seconds)
            outcome, text = f"ended with status {answer.status}" if answer.status else "", answer.text
        except LateError as late:
            outcome, text = f"did not end within {settings.pre_deploy_seconds} s", late.text
        if outcome:
            if stack.releases.live() in {one.id for one in stack.releases.kept()}:
                # Where a run was killed, what serves may be none that is kept.
                stack.prune(release)
            raise FleetError(
                f"{what} {outcome}. Nothing was replaced: what served serves on.\nIts last lines:\n{last_lines(text)}"
            )
        say("\n".join([f"{what}:", *text.strip().splitlines()]))
