"""The base of all images is bootstrapped from Debian's packages on this machine's engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.playbook import Outcome

REPOSITORY = "bootstrap-test"


@pytest.mark.docker
def test_base_that_was_not_finished_has_no_name(tmp_path: Path) -> None:
    """Otherwise the next run would use half a base."""
    play = tmp_path / "play.yml"
    play.write_text("- hosts: app\n  gather_facts: false\n  roles: [{role: image, vars: {image_recipes: [base]}}]\n")
    source = '{"image_base_sources": ["deb http://127.0.0.1:9/debian trixie main"], "image_repository": "' + REPOSITORY
    ran = Outcome(["ansible-playbook", str(play), "--inventory=inventories/local", "--extra-vars", source + '"}'])
    assert not ran.ok
    assert "127.0.0.1" in ran.said
    command = ["docker", "images", "--quiet", f"--filter=reference={REPOSITORY}/*"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
