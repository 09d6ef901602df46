"""The output of a run: phases for a person, and every task on request."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import ROOT

PLAYBOOK = """
- name: Configure
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Do nothing
      ansible.builtin.meta: noop
    - name: Look
      ansible.builtin.assert: {that: true, quiet: true}
    - name: Change
      ansible.builtin.assert: {that: true, quiet: true}
      changed_when: true
    - name: Say where to look
      ansible.builtin.debug:
        msg: http://localhost:7151
    - name: Say it of each
      ansible.builtin.debug:
        msg: "{{ item }} serves"
      loop: [web, api]
    - name: Say more
      ansible.builtin.debug:
        msg: "first\\nsecond"
    - name: Wait
      ansible.builtin.command: sleep 5
      changed_when: false
      when: waits | default(false) | bool
    - name: Fail
      ansible.builtin.fail:
        msg: the reason
      when: fails | default(false) | bool

- name: Verify
  hosts: localhost:!localhost
  gather_facts: false
"""


Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the playbook with some arguments."""
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(PLAYBOOK)

    def once(*arguments: str) -> list[str]:
        command = ["ansible-playbook", str(playbook), "-i", "localhost,", *arguments]
        command += ["-e", f"ansible_python_interpreter={sys.executable}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == (2 if "fails=true" in arguments else 0), done.stdout + done.stderr
        return (done.stdout + done.stderr).splitlines()

    return once


def test_phase_is_two_lines_and_messages_are_whole(run: Run) -> None:
    """Everything that is neither a phase nor a message to the reader needs -v, but for a task that takes long."""
    lines = run("-e", "waits=true")
    # On a busy machine other tasks are named for taking long, too.
    said = [line for line in lines[: lines.index("")] if not line.startswith("  ")]
    assert said == [
        "Configure",
        "localhost: http://localhost:7151",
        "localhost: web serves",
        "localhost: api serves",
        "localhost:",
        "first",
        "second",
        "Verify: no hosts",
    ]
    assert any(re.fullmatch(r"  Wait: \d+ s", line) for line in lines)
    assert re.fullmatch(r"  1 changed, \d+ s", lines[lines.index("Verify: no hosts") - 1])
    assert lines[-1].startswith("took ")


def test_failures_and_with_diff_changes_are_printed_as_ansible_prints_them(run: Run) -> None:
    printed = "\n".join(run("--diff", "-e", "fails=true"))
    assert "TASK [Look]" not in printed
    assert "TASK [Change]" in printed
    assert "TASK [Fail]" in printed
    assert "msg: the reason" in printed


def test_every_task_is_printed_with_v(run: Run) -> None:
    printed = "\n".join(run("-v"))
    assert "TASK [Look]" in printed
    assert "TASK [Change]" in printed
