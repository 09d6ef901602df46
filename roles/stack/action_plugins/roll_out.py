"""Ansible action: replaces the replicas of the release before, a few at a time, and shows each step as it happens.

Start new, wait until it is healthy and nginx sends requests to it, then drain and remove an old one. A new nginx is
tried first, beside the one that serves, and takes its place last, while another of its kind serves in between. When
anything fails, what was already replaced is put back, and the release before goes on serving.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

BESIDE = "another new one serves while the old one finishes what it has and is replaced"
ALONE = (
    "is replaced now, about a second without answers; another can serve where root has nft, on an instance for example"
)

UWSGI = "uwsgi"
RELOAD_S = 10
"""How long nginx may take to read its configuration."""

Replica = Mapping[str, Any]
Service = Mapping[str, Any]


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

    Args:
        wanted: How many replicas the service shall have.
        surge: How many more there may be for the time of the change.
        replicas: What ``stack_machine`` says of each.

    Returns:
        The next step; None when no old replica is left. Mere numbers are Compose's business.
    """
    dead = tuple(one["id"] for one in replicas if not one["running"])
    old = [one for one in replicas if one["running"] and not one["fresh"]]
    if not old:
        return None
    if dead:
        return Step("remove", replicas=dead)
    missing = wanted - (len(replicas) - len(old))
    room = wanted + surge - len(replicas)
    if missing > 0 and room > 0:
        return Step("start", count=len(replicas) + min(missing, room))
    # One that takes no traffic is missed by nobody.
    first = min(old, key=lambda one: (one["ready"], one["since"]))
    return Step("retire", replicas=(first["id"],))


def runs(service: Service) -> bool:
    """Tell whether anything of a service runs.

    Args:
        service: What ``stack_machine`` says of it.

    Returns:
        Whether it does.
    """
    return any(one["running"] for one in service["replicas"])


def is_fresh(service: Service) -> bool:
    """Tell whether nothing of a service has to be replaced.

    Args:
        service: What ``stack_machine`` says of it.

    Returns:
        Whether that is so; also when nothing of it is there.
    """
    return all(one["fresh"] for one in service["replicas"])


def meets(networks: Collection[str], replicas: Sequence[Replica]) -> bool:
    """Tell whether a container could reach one of these.

    Args:
        networks: Those of the container.
        replicas: What ``stack_machine`` says of each.

    Returns:
        Whether they share a network; also when there is no replica.
    """
    return not replicas or any(not set(networks).isdisjoint(one["networks"]) for one in replicas)


def changes_port(services: Mapping[str, Service]) -> bool:
    """Tell whether replicas that run listen elsewhere than those that are to come."""
    return any(
        replica["port"] != one["port"]
        for name, one in services.items()
        if name != "nginx"
        for replica in one["replicas"]
    )


def running_nginx_is_blind(services: Mapping[str, Service]) -> bool:
    """Tell whether the nginx that serves would not find the replicas that are to come.

    So it is when services move to other networks, or to another port and nginx is of a release that knows only one for
    each service. The new one then has to take its place first.

    Args:
        services: What ``stack_machine`` says of the release to come.

    Returns:
        Whether that is so for one of the services that run already.
    """
    nginx = services["nginx"]["replicas"]
    if changes_port(services) and not all(one["finds_ports"] for one in nginx):
        return True
    running = [one for name, one in services.items() if name != "nginx" and one["replicas"]]
    return not all(meets(one["networks"], nginx) for one in running)


def new_nginx_is_blind(services: Mapping[str, Service]) -> bool:
    """Tell whether the nginx that is to come would not find the replicas that run.

    So it is on the way back. The replicas then have to change first.

    Args:
        services: What ``stack_machine`` says of the release to come.

    Returns:
        Whether that is so for one of the services.
    """
    if changes_port(services) and not services["nginx"]["finds_ports"]:
        return True
    networks = services["nginx"]["networks"]
    return not all(meets(networks, one["replicas"]) for name, one in services.items() if name != "nginx")


def changes_to_uwsgi(services: Mapping[str, Service]) -> bool:
    """Tell whether a service that has another application server is to get uWSGI.

    A replica in uWSGI understands nginx in HTTP too, the others only that. So nginx speaks uwsgi last.

    Args:
        services: What ``stack_machine`` says of the release to come.

    Returns:
        Whether that is so for one of them.
    """
    return any(one["server"] == UWSGI != replica["server"] for one in services.values() for replica in one["replicas"])


def leaves_uwsgi(services: Mapping[str, Service]) -> bool:
    """Tell whether a service that runs in uWSGI is to get another application server: nginx speaks HTTP first then.

    Args:
        services: What ``stack_machine`` says of the release to come.

    Returns:
        Whether that is so for one of them.
    """
    return any(replica["server"] == UWSGI != one["server"] for one in services.values() for replica in one["replicas"])


class ActionModule(ActionBase):  # type: ignore[misc]
    """Ansible's entry point."""

    _VALID_ARGS = frozenset({"directory", "release", "surge", "seconds", "keep"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Roll the release out.

        Args:
            tmp: Unused.
            task_vars: All variables.

        Returns:
            Ansible's result; failed when the release does not take traffic.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._ansible = os.getppid()
        release = str(self._task.args["release"])
        if self._task.check_mode:
            return result | {"changed": True}
        before = self._last_that_worked()
        try:
            self._bring_static(release)
            self._do("activate", release=release)
        except AnsibleActionFail:
            if before:
                # Some may have the place of files of the same name, which the pages that serve on ask for.
                with suppress(AnsibleActionFail):
                    self._bring_static(before)
            raise
        try:
            self._change(release)
        except AnsibleActionFail as failure:
            kept = self._go_back(before) if before not in ("", release) else "There was no release before it."
            return result | {"failed": True, "msg": f"Release {release} does not work.\n{failure.message}\n{kept}"}
        return result | {"changed": True}

    def _change(self, release: str) -> None:
        state = self._look(release)
        services = state["services"]
        late = new_nginx_is_blind(services) or changes_to_uwsgi(services)
        if state["stand_in"] and runs(services["nginx"]):
            # Of a run that was interrupted. Where nothing else serves, it stays to the end.
            self._do("stand_down")
        if not late:
            self._try_nginx(release)
        if running_nginx_is_blind(services):
            self._say("nginx: the new one takes the old one's place first, to find the new replicas")
            self._renew_nginx(self._look(release))
        self._leave_uwsgi(release)
        self._replace_all(release)
        if late:
            self._try_nginx(release)
        self._finish(release)

    def _last_that_worked(self) -> str:
        # Not the live one: that may be one whose deploy was killed.
        releases = self._look(None)["releases"] if self._exists() else []
        return str(releases[0]["id"]) if releases else ""

    def _bring_static(self, release: str) -> None:
        """Have nginx find the static files of a release, before a page can ask for them."""
        for name, service in self._look(release)["services"].items():
            if service["static"]:
                given = {"service": name, "image": service["image"], "folder": service["static"]}
                self._static_files(action="bring", **given)

    def _static_files(self, **given: Any) -> None:
        self._run("static_files", {"path": f"{self._task.args['directory']}/static", **given})

    def _finish(self, release: str) -> None:
        state = self._look(release)
        if not is_fresh(state["services"]["nginx"]):
            self._renew_nginx(state)
        self._compose()
        if state["stand_in"]:
            self._do("stand_down")

    def _renew_nginx(self, state: Mapping[str, Any]) -> None:
        """Put a new nginx in the place of the old one, and leave the services that it depends on as they are."""
        nginx = state["services"]["nginx"]
        if runs(nginx) and not state["stand_in"]:
            serves = self._do("stand_in", seconds=int(self._task.args["seconds"]))["serves"]
            self._say(f"nginx: {BESIDE if serves else ALONE}")
        self._do("retire_nginx", replicas=[one["id"] for one in nginx["replicas"]])
        # Not with `--no-deps`: Compose would count it as another configuration, and replace it once more at the end.
        self._compose(["nginx"], recreate="never")
        self._do("stand_down")
        self._say("nginx: the new one serves")

    def _leave_uwsgi(self, release: str) -> None:
        """Have nginx speak HTTP where it speaks uwsgi, before the first replica comes that does not understand it."""
        state = self._look(release)
        nginx = state["services"]["nginx"]
        if not (leaves_uwsgi(state["services"]) and runs(nginx)) or state["nginx_current"]:
            return
        self._say("nginx: it speaks HTTP first, which uWSGI understands too")
        if not is_fresh(nginx):
            self._renew_nginx(state)
            return
        given = {"project_src": self._task.args["directory"], "service": "nginx", "argv": ["reload"]}
        self._run("community.docker.docker_compose_v2_exec", given)
        deadline = time.monotonic() + RELOAD_S
        while not self._look(release)["nginx_current"]:
            if time.monotonic() > deadline:
                raise AnsibleActionFail(f"nginx did not read its new configuration within {RELOAD_S} s")
            time.sleep(0.5)

    def _compose(self, services: Sequence[str] = (), recreate: str = "auto") -> None:
        """Have Compose start what is missing and remove what is left over; or only bring these services up."""
        given = {
            "project_src": self._task.args["directory"],
            "state": "present",
            "pull": "never",
            "remove_orphans": not services,
            "dependencies": not services or recreate == "never",
            "recreate": recreate,
            "services": list(services),
            "wait": True,
            "wait_timeout": int(self._task.args["seconds"]),
        }
        try:
            self._run("community.docker.docker_compose_v2", given)
        except AnsibleActionFail as failure:
            raise AnsibleActionFail(f"{failure.message}\n{self._reason_not_ready()}".rstrip()) from failure

    def _reason_not_ready(self) -> str:
        """Give the reason and the last log lines of a replica that is not ready, which Compose does not show."""
        services = self._look(str(self._task.args["release"]))["services"]
        replicas = [one for name, service in services.items() if name != "nginx" for one in service["replicas"]]
        for replica in replicas:
            if not replica["ready"]:
                try:
                    self._do("wait", replicas=[replica["id"]], seconds=0)
                except AnsibleActionFail as failure:
                    return str(failure.message)
        return ""

    def _run(self, module: str, given: dict[str, Any]) -> dict[str, Any]:
        if os.getppid() != self._ansible:
            # ansible-playbook was killed, and this worker was not: whoever deploys next takes the lock over.
            os._exit(1)
        answer: dict[str, Any] = self._execute_module(module, module_args=given, task_vars=self._vars)
        if answer.get("failed") or answer.get("unreachable"):
            raise AnsibleActionFail(str(answer.get("msg", answer)))
        return answer

    def _do(self, action: str, **arguments: Any) -> dict[str, Any]:
        return self._run("stack_machine", {"action": action, "directory": self._task.args["directory"], **arguments})

    def _exists(self) -> bool:
        file = f"{self._task.args['directory']}/compose.yml"
        stat = self._execute_module("ansible.legacy.stat", module_args={"path": file}, task_vars=self._vars)
        return bool(stat["stat"]["exists"])

    def _look(self, release: str | None) -> dict[str, Any]:
        return self._do("look", release=release)

    def _say(self, text: str) -> None:
        Display().display(f"  {self._vars['inventory_hostname']}: {text}", color="cyan")

    def _replace_all(self, release: str) -> None:
        state = self._look(release)
        for service in sorted(set(state["services"]) - {"nginx"}):
            self._replace(service, release)

    def _try_nginx(self, release: str) -> None:
        """Try an nginx of another image or other settings; a changed nginx.conf is only reloaded."""
        services = self._look(release)["services"]
        if is_fresh(services["nginx"]) or not runs(services["nginx"]):
            return
        new = [name for name, service in services.items() if not service["replicas"]]
        if new:
            # nginx is healthy only when it finds a replica of every service.
            self._compose(new)
        self._do("try_nginx", seconds=int(self._task.args["seconds"]))
        self._say("nginx: the new one is healthy in a trial and will take the old one's place")

    def _replace(self, service: str, release: str) -> None:
        surge = int(self._task.args["surge"])
        while True:
            one = self._look(release)["services"][service]
            next_to_do = next_step(one["wanted"], surge, one["replicas"])
            if next_to_do is None:
                return
            fresh = [replica["id"] for replica in one["replicas"] if replica["fresh"] and replica["running"]]
            since = time.monotonic()
            if next_to_do.action == "start":
                started = self._do("start", service=service, count=next_to_do.count)["started"]
                self._say(f"{service}: started {', '.join(started)}, replica {len(fresh) + 1} of {one['wanted']}")
                self._wait(service, fresh + started)
                self._say(f"{service}: {', '.join(started)} takes traffic after {time.monotonic() - since:.1f} s")
            else:
                # Those of a run that was interrupted were never waited for.
                self._wait(service, fresh)
                self._do(next_to_do.action, replicas=list(next_to_do.replicas))
                done = "drained and removed" if next_to_do.action == "retire" else "removed the dead"
                self._say(f"{service}: {done} {', '.join(next_to_do.replicas)} in {time.monotonic() - since:.1f} s")

    def _wait(self, service: str, replicas: list[str]) -> None:
        try:
            self._do("wait", replicas=replicas, seconds=int(self._task.args["seconds"]))
        except AnsibleActionFail:
            self._say(f"{service}: {', '.join(replicas)} does not take traffic")
            raise

    def _go_back(self, release: str) -> str:
        """Put the release before back: it needs no new replica where none of its own was retired yet."""
        self._say(f"going back to release {release}")
        try:
            self._put_back(release)
        except AnsibleActionFail as failure:
            return f"Going back to release {release} failed as well.\n{failure.message}"
        try:
            # The release that does not work, its secrets, images and static files are of no use to anybody.
            kept = self._do("prune", count=int(self._task.args["keep"]))["static"]
            self._static_files(action="forget", keep=kept)
        except AnsibleActionFail as failure:
            return f"Release {release} serves on. The other one could not be removed.\n{failure.message}"
        return f"Release {release} serves on."

    def _put_back(self, release: str) -> None:
        self._do("activate", release=release)
        state = self._look(release)
        if not is_fresh(state["services"]["nginx"]) and not new_nginx_is_blind(state["services"]):
            # First, because while it is broken nobody is answered.
            self._renew_nginx(state)
        self._leave_uwsgi(release)
        for service in set(state["services"]) - {"nginx"}:
            replicas = state["services"][service]["replicas"]
            broken = [one["id"] for one in replicas if not one["fresh"] and not (one["running"] and one["ready"])]
            if broken:
                self._do("remove", replicas=broken)
        self._replace_all(release)
        self._finish(release)
        # Last, because the replicas are needed more.
        self._bring_static(release)
