"""The recipe of the instance image."""

from pathlib import Path

import pytest

IMAGE = Path(__file__).parents[2] / "files" / "images" / "instance"


RECIPE = (IMAGE / "Dockerfile").read_text(encoding="utf-8")


def test_base_is_given_and_no_registry_is_named() -> None:
    lines = [line for line in RECIPE.splitlines() if line and not line.startswith("#")]
    assert lines[:2] == ["ARG BASE", "FROM ${BASE}"]


@pytest.mark.parametrize(
    "package", ["systemd-sysv", "systemd-resolved", "openssh-server", "sudo", "cloud-init", "python3", "iptables"]
)
def test_image_has_what_the_ami_has(package: str) -> None:
    assert f" {package} " in RECIPE.replace("\\\n", " ")


def test_neither_docker_nor_an_identity_is_baked_in() -> None:
    """The docker role must prove that it can install Docker."""
    assert "docker.io" not in RECIPE
    assert {"/etc/ssh/ssh_host_*", "/etc/machine-id"} <= set(RECIPE.split())


def test_user_is_admin_and_shutdown_is_clean() -> None:
    """The cloud-init package alone would make the user debian; systemd would ignore SIGTERM."""
    assert "STOPSIGNAL SIGRTMIN+3" in RECIPE
    assert "name: admin" in (IMAGE / "cloud.cfg").read_text(encoding="utf-8")
