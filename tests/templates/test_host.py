"""The files of the host role: a swap file, automatic security updates, and kernel settings."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.render import MANAGED, Renderer
from tests.project import ROOT, load_yaml

SWAP = "etc/systemd/system/host-swap.service.j2"
UPDATES = "etc/apt/apt.conf.d/20auto-upgrades.j2"


def unit(text: str) -> configparser.ConfigParser:
    """Read a unit file, in which every key must stand once."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # keys of systemd have capitals
    parser.read_string(text)
    return parser


def test_swap_file_has_the_size_that_was_asked_for(render: Renderer) -> None:
    text = render("host", SWAP, host_swap_mib=512)
    assert text.startswith(f"#\n# {MANAGED}\n#\n")
    service = unit(text)["Service"]
    make = service["ExecStartPre"]
    steps = ["test -s /swapfile ||", "umask 077", "fallocate -l 512M /swapfile.new", "mkswap /swapfile.new"]
    places = [make.index(step) for step in [*steps, "mv /swapfile.new /swapfile"]]
    assert places == sorted(places), "a half-made file must not be taken for a whole one"
    assert service["ExecStart"] == "/sbin/swapon /swapfile"
    assert service["ExecStop"] == "/sbin/swapoff /swapfile"


def test_swap_survives_a_reboot_and_spares_containers(render: Renderer) -> None:
    """Swap in the rehearsal's containers would be the swap of the person's own machine."""
    read = unit(render("host", SWAP))
    assert read["Install"]["WantedBy"] == "swap.target"
    assert read["Unit"]["ConditionVirtualization"] == "!container"
    assert (read["Service"]["Type"], read["Service"]["RemainAfterExit"]) == ("oneshot", "yes")
    # It waits for nothing that waits for swap: tmp.mount does, and systemd dropped /tmp to break the cycle.
    assert (read["Unit"]["After"], read["Unit"]["Before"]) == ("systemd-remount-fs.service", "swap.target")
    assert read["Unit"]["RequiresMountsFor"] == "/swapfile"


def test_swap_is_on_before_packages_are_installed() -> None:
    """On 1 GiB apt is the first program that needs it."""
    parts = [task["ansible.builtin.import_tasks"] for task in load_yaml(ROOT / "roles/host/tasks/main.yml")]
    assert parts.index("swap.yml") < parts.index("packages.yml")


@pytest.mark.parametrize("path", ["/swapfile", "/var/swap"])
def test_swap_file_is_named_in_one_place(render: Renderer, path: str) -> None:
    text = render("host", SWAP, __host_swap_file=path)
    assert text.count(path) == 8
    assert path == "/swapfile" or "/swapfile" not in text


def test_security_updates_install_themselves(render: Renderer) -> None:
    """Both settings are needed, because without new lists there is never anything to upgrade."""
    text = render("host", UPDATES)
    assert MANAGED in text
    assert text.rstrip().split("*/\n")[1].splitlines() == [
        'APT::Periodic::Update-Package-Lists "1";',
        'APT::Periodic::Unattended-Upgrade "1";',
        'Unattended-Upgrade::Automatic-Reboot "false";',
    ]


def test_a_reboot_is_made_when_a_time_is_given(render: Renderer) -> None:
    """A new kernel needs it, but a machine must not reboot unless somebody asked for it."""
    assert render("host", UPDATES, host_reboot_time="04:00").splitlines()[-2:] == [
        'Unattended-Upgrade::Automatic-Reboot "true";',
        'Unattended-Upgrade::Automatic-Reboot-Time "04:00";',
    ]


@pytest.mark.skipif(not shutil.which("apt-config"), reason="only Debian has apt")
def test_apt_reads_the_updates_file(render: Renderer, tmp_path: Path) -> None:
    """Its comments are not those of other files, and after a bad one apt would refuse every command."""
    path = tmp_path / "20auto-upgrades"
    path.write_text(render("host", UPDATES), encoding="utf-8")
    command = ["apt-config", f"--config-file={path}", "dump", "APT::Periodic"]
    read = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    assert 'APT::Periodic::Unattended-Upgrade "1";' in read.stdout
    assert read.stderr == ""


def test_forwarding_is_left_to_docker(render: Renderer) -> None:
    """The usual lists of kernel settings turn it off, and with it every published port."""
    text = render("host", "etc/sysctl.d/60-flask-fleet.conf.j2")
    settings = dict(line.split(" = ") for line in text.splitlines() if not line.startswith("#"))
    assert settings["net.ipv4.tcp_syncookies"] == "1"
    assert [name for name in settings if "forward" in name] == []


def test_kernel_settings_of_the_inventory_win(render: Renderer) -> None:
    text = render("host", "etc/sysctl.d/60-flask-fleet.conf.j2", host_sysctl={"net.ipv4.conf.all.rp_filter": 2})
    assert re.findall(r"^net.ipv4.conf.all.rp_filter = (.+)$", text, re.MULTILINE) == ["2"]
