"""The container behind an instance."""

import json
import socket
import threading

import pytest

from rehearsal import docker, instance
from rehearsal.instance import Machine
from rehearsal.sizing import Size
from rehearsal.state import Settings


@pytest.fixture
def machine(settings: Settings) -> Machine:
    return instance.machine_for(settings, "i-0123", "10.99.0.4", ["ssh-ed25519 AAAA me"], "#!/bin/sh\ntrue\n")


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    ran: list[tuple[str, ...]] = []

    def run(*arguments: str, **_: float) -> str:
        ran.append(arguments)
        return ""

    monkeypatch.setattr(docker, "run", run)
    return ran


def test_instance_is_never_privileged_and_publishes_nothing(machine: Machine) -> None:
    """Some engines refuse --privileged, and only the instance's own address may reach it."""
    options = machine.options()
    assert not [one for one in options if one.startswith(("--privileged", "--publish", "-p"))]
    assert {"--cap-drop=SYS_RESOURCE", "--security-opt=systempaths=unconfined", "--cgroupns=private"} <= set(options)
    # Clock, modules and swap of the machine around it are out of reach.
    assert {"--cap-drop=SYS_TIME", "--cap-drop=SYS_MODULE"} <= set(options)
    profile = json.loads(instance.SECCOMP.read_text(encoding="utf-8"))
    assert set(profile["syscalls"][0]["names"]) >= {"swapon", "swapoff", "kexec_load"}


def test_names_carry_the_rehearsal_and_the_instance(machine: Machine) -> None:
    assert machine.container == "trial-i-0123"
    assert {"--name=trial-i-0123", "--hostname=ip-10-99-0-4", "--ip=10.99.0.4", "--restart=no"} <= set(
        machine.options()
    )


def test_everything_is_labelled(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thing without a label cannot be removed after a crash."""
    ran = recorded(monkeypatch)
    monkeypatch.setattr(docker, "pinned_cpus", lambda: ["0"])
    machine.create("image", Size(1, 1024))
    created = [one for one in ran if "create" in one]
    assert len(created) == 2
    assert all(f"--label={docker.LABEL}=trial" in one for one in created)
    assert created[1][-1] == "image"


def test_cloud_init_gets_what_the_api_was_given(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "run", lambda *_, **__: "")
    machine.create("image", Size(1, 1024))
    seed = machine.directory / "seed"
    known = json.loads((seed / "meta-data").read_text(encoding="utf-8"))
    names = {"instance-id": "i-0123", "local-hostname": "ip-10-99-0-4"}
    assert known == names | {"public-keys": ["ssh-ed25519 AAAA me"]}
    assert (seed / "user-data").read_text(encoding="utf-8") == "#!/bin/sh\ntrue\n"


def test_limits_bite() -> None:
    """With a quota but without pinning `nproc` would lie, and swap would hide that memory is short."""
    limits = ["--memory=4096m", "--memory-swap=4096m", "--cpus=2", "--cpuset-cpus=0,1"]
    assert instance.limits(Size(2, 4096), [0, 1]) == limits


@pytest.mark.parametrize(("greeting", "answer"), [(b"SSH-2.0-OpenSSH_10.0\r\n", True), (b"HTTP/1.1 400\r\n", False)])
def test_only_an_ssh_server_counts_as_booted(greeting: bytes, answer: bool) -> None:
    """A port can be open before sshd can let anybody log in."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        assert instance.ssh_answers("127.0.0.1", server.getsockname()[1]) is answer
        thread.join()


def test_container_that_dies_ends_the_wait_with_its_last_log_lines(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason must reach DescribeInstances instead of a time-out."""
    monkeypatch.setattr(docker, "exit_code", lambda _: 255)
    monkeypatch.setattr(Machine, "console", lambda _: "one\r\nno cgroup\n")
    with pytest.raises(instance.InstanceError, match=r"exit code 255.*no cgroup"):
        machine.wait()


def test_reboot_from_user_data_is_part_of_the_boot(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """cloud-init may ask for a reboot; EC2 does not call that a failure."""
    codes = iter([instance.REBOOTED, None])
    ran = recorded(monkeypatch)
    monkeypatch.setattr(docker, "exit_code", lambda _: next(codes))
    monkeypatch.setattr(docker, "attempt", lambda *_, **__: docker.Outcome(0, "", ""))
    monkeypatch.setattr(instance, "ssh_answers", lambda _: True)
    monkeypatch.setattr(instance, "POLL", 0)
    machine.wait()
    assert [command[:2] for command in ran] == [("container", "start")]
