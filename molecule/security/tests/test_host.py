"""Who can log in to the machine and how, what it logs about that, and whether it keeps itself up to date."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest
from testinfra.host import Host

from bench.ec2 import inside
from bench.playbook import interrupted, playbook
from bench.stack import Stack
from tests.live_outsider import KEY, KNOWN, Outsider

LOGIN = "admin"
"""The login of Debian's machine images."""
GUESSER = "guesser"
PASSWORD = uuid4().hex
ASK = "/run/outside-ask"
GUESSES = 30

WANTED = {
    "allowagentforwarding": "no",
    "allowtcpforwarding": "no",
    "hostbasedauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "logingracetime": "30",
    "loglevel": "VERBOSE",
    "maxauthtries": "3",
    "passwordauthentication": "no",
    "permitemptypasswords": "no",
    "permitrootlogin": "no",
    "permittunnel": "no",
    "permituserenvironment": "no",
    "pubkeyauthentication": "yes",
    "x11forwarding": "no",
}
OLD = (
    "sha1",
    "cbc",
    "3des",
    "arcfour",
    "md5",
    "hmac-sha2-256,",
    "umac-64",
    "diffie-hellman",
    "nistp",
    "ssh-rsa,",
    "ssh-dss",
)
"""Algorithms that must not be used, because they are broken or not recommended any more."""


@pytest.fixture(scope="module")
def key(host: Host, outsider: Outsider) -> Iterator[None]:
    """Authorise the outsider's key for the login and, in case sshd would accept it, for root."""
    files = ["/root/.ssh/authorized_keys", f"/home/{LOGIN}/.ssh/authorized_keys"]
    for file in files:
        host.check_output(f"cp {file} {file}.kept; echo {shlex.quote(outsider.public_key)} > {file}.new")
        host.check_output(f"cat {file}.kept >> {file}.new; cat {file}.new > {file}; rm {file}.new")
    yield
    for file in files:
        host.check_output(f"cat {file}.kept > {file}; rm {file}.kept")


@pytest.fixture(scope="module")
def effect(host: Host) -> dict[str, str]:
    """Ask sshd for the values in force, by option."""
    lines = host.check_output("sshd -T").splitlines()
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def test_sshd_does_what_is_wanted(effect: dict[str, str]) -> None:
    """The first file that sets an option wins, and cloud-init and packages write files too."""
    assert {name: effect[name] for name in WANTED} == WANTED


@pytest.mark.parametrize("kind", ["ciphers", "hostkeyalgorithms", "kexalgorithms", "macs", "pubkeyacceptedalgorithms"])
def test_sshd_speaks_only_what_is_not_known_to_be_weak(effect: dict[str, str], kind: str) -> None:
    """Somebody who records the traffic has years to decrypt it."""
    allowed = {"nistp"} if "key" in kind and kind != "kexalgorithms" else set()
    assert [old for old in OLD if old not in allowed and old in f"{effect[kind]},"] == []


def test_what_is_in_force_is_what_the_file_says(host: Host) -> None:
    """The server reads a file only when it starts or is told to reload."""
    assert host.check_output("find /etc/ssh/sshd_config.d -name '*.conf' -newer /run/sshd.pid") == ""


@pytest.mark.usefixtures("key")
def test_a_key_gets_in_and_root_does_not(outsider: Outsider, stack: Stack) -> None:
    """The same key is in the files of the login and of root."""
    welcome = outsider.ssh(f"{LOGIN}@{stack.address}", "id -un")
    assert welcome.stdout.strip() == LOGIN, welcome.stderr
    refused = outsider.ssh(f"root@{stack.address}", "id -un")
    assert refused.rc != 0
    assert "Permission denied (publickey)" in refused.stderr


@pytest.mark.usefixtures("key")
def test_sudo_says_who_ran_what(host: Host, outsider: Outsider, stack: Stack) -> None:
    """Several people share the login: the journal names the key that logged in and each command that ran as root."""
    mark = uuid4().hex
    done = outsider.ssh(f"{LOGIN}@{stack.address}", f"sudo -n true {mark}")
    assert done.rc == 0, done.stderr
    journal = host.check_output("journalctl --since=-5min --output=cat SYSLOG_IDENTIFIER=sudo")
    assert any(f"USER=root ; COMMAND=/usr/bin/true {mark}" in line for line in journal.splitlines())
    fingerprint = host.check_output(f"ssh-keygen -lf {KEY}.pub").split()[1]
    logins = host.check_output("journalctl --since=-5min --output=cat --unit=ssh")
    assert f"Accepted publickey for {LOGIN} from {KNOWN}" in logins
    assert fingerprint in logins
    assert "use_pty" in host.check_output(f"sudo -l -U {LOGIN}")


@pytest.mark.parametrize(
    ("role", "variables", "said"),
    [
        ("sshd", {"sshd_options": {"Ciphers": "nonsense"}}, "Bad SSH2 cipher spec"),
        ("sshd", {"sshd_options": {"PubkeyAuthentication": "no"}}, f"{LOGIN} could not log in"),
        ("sshd", {"sshd_options": {"Port": "2222"}}, f"{LOGIN} could not log in"),
        ("sshd", {"sshd_options": {"AllowUsers": f"{LOGIN}@192.0.2.* bob"}}, f"{LOGIN} could not log in"),
        ("sshd", {"sshd_options": {"DenyGroups": "sud?"}}, f"{LOGIN} could not log in"),
        ("firewall", {"firewall_ssh_cidrs": ["192.0.2.1/32"]}, "which firewall_ssh_cidrs does not have"),
    ],
    ids=["sshd refuses it", "nobody could log in", "another port", "from elsewhere", "a group", "not from here"],
)
def test_what_would_lock_out_is_refused(host: Host, role: str, variables: dict[str, object], said: str) -> None:
    """A mistake in one line must not lock everybody out of the machine for good."""
    look = "cat /etc/ssh/sshd_config.d/* /etc/firewall.nft; nft --stateless list ruleset; systemctl show ssh -p MainPID"
    before = host.check_output(look)
    refused = playbook("playbooks/configure.yml", "--tags", role, "--extra-vars", json.dumps(variables))
    assert not refused.ok
    assert said in " ".join(refused.said.split())
    assert host.check_output(look) == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "task", "begun"),
    [
        (
            "/etc/systemd/journald.conf.d/60-flask-fleet.conf",
            "host : settings | Set the kernel and the modes, and ask which services have not read their settings",
            "systemctl show --property=ExecMainStartTimestampMonotonic --value systemd-journald",
        ),
        (
            "/etc/ssh/sshd_config.d/10-flask-fleet.conf",
            "sshd : configure | Compare what runs with the file",
            "stat --format=%y /run/sshd.pid",
        ),
        (
            "/etc/docker/daemon.json",
            "docker : run | Ask whether the engine started before its settings were written",
            "stat --format=%y /run/docker.pid",
        ),
    ],
    ids=["journal", "sshd", "engine"],
)
def test_a_killed_configure_is_mended_by_the_next(host: Host, file: str, task: str, begun: str) -> None:
    """A run that is killed after it wrote a file leaves the reload undone, and the next run must still do it."""
    role = task.partition(" ")[0]
    host.check_output(f"echo >> {file}")
    before = host.check_output(begun)
    killed = playbook("playbooks/configure.yml", "--tags", role, prefix=interrupted(task, "kill -s KILL {pid}"))
    assert killed.done.returncode == -signal.SIGKILL, killed.said
    assert host.check_output(begun) == before
    mended = playbook("playbooks/configure.yml", "--tags", role)
    assert mended.ok, mended.said
    assert host.check_output(begun) != before
    assert set(playbook("playbooks/configure.yml", "--tags", role).changed.values()) == {0}


def test_a_right_password_is_refused(host: Host, outsider: Outsider, stack: Stack) -> None:
    """Passwords become known, and attackers then try them everywhere."""
    host.check_output(f"useradd --create-home {GUESSER} && echo {GUESSER}:{PASSWORD} | chpasswd")
    try:
        host.check_output(f"printf '#!/bin/sh\\necho {PASSWORD}\\n' > {ASK}; chmod 700 {ASK}")
        options = "-o PubkeyAuthentication=no -o PreferredAuthentications=password,keyboard-interactive"
        client = f"env SSH_ASKPASS={ASK} SSH_ASKPASS_REQUIRE=force ssh"
        refused = outsider.ssh(f"{GUESSER}@{stack.address}", "id", options, client)
    finally:
        host.check_output(f"userdel --remove {GUESSER}; rm -f {ASK}")
    assert refused.rc != 0
    assert "Permission denied (publickey)" in refused.stderr


def test_who_goes_on_guessing_is_not_listened_to(outsider: Outsider, stack: Stack) -> None:
    """Each unknown key costs a second; from fifteen on the address is refused at once, and other addresses are not."""
    guess = f"ssh -i {KEY} -o BatchMode=yes -o StrictHostKeyChecking=no {GUESSER}@{stack.address} id"
    said = outsider.run(
        f"sh -c 'for i in $(seq {GUESSES}); do {guess}; done 2>&1 | grep -v Warning'"
    ).stdout.splitlines()
    assert "Permission denied (publickey)" in said[0]
    assert "Permission denied" not in said[-1]
    assert inside(stack.instance_id).ansible("ansible.builtin.ping", check=False)["ping"] == "pong"


def test_security_updates_install_themselves(host: Host) -> None:
    """This includes the Docker engine, which comes from Debian too."""
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(timer).is_enabled
        assert host.service(timer).is_running
    settings = host.check_output("apt-config dump")
    assert 'APT::Periodic::Update-Package-Lists "1";' in settings
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    origins = [line for line in settings.splitlines() if line.startswith("Unattended-Upgrade::Origins-Pattern::")]
    assert any("label=Debian-Security" in line for line in origins)


def test_settings_are_in_force(host: Host) -> None:
    """Only the network's settings are checked: a container cannot set those of the whole machine."""
    wanted = {
        "net.ipv4.conf.all.accept_redirects": "0",
        "net.ipv4.conf.all.rp_filter": "1",
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.ip_forward": "1",
        "net.ipv4.tcp_syncookies": "1",
    }
    assert {name: host.check_output(f"sysctl -n {name}") for name in wanted} == wanted


def test_a_reboot_that_is_waited_for_is_said(host: Host, stack: Stack) -> None:
    """A new kernel protects nobody until it runs."""
    said = f"{stack.instance_id}  an update waits for a reboot"
    assert said not in playbook("playbooks/status.yml").said
    host.check_output("touch /run/reboot-required; echo linux-image-amd64 > /run/reboot-required.pkgs")
    try:
        assert said in playbook("playbooks/status.yml").said
        assert "reboot: linux-image-amd64" in host.check_output("run-parts /etc/update-motd.d")
    finally:
        host.check_output("rm /run/reboot-required /run/reboot-required.pkgs")
