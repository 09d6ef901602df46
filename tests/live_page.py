"""Runs the commands of docs/aws.md against a rehearsal, as they are written."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import venv
from pathlib import Path

from bench.ec2 import REGION
from bench.playbook import Outcome, variables_file
from tests.page import Block, blocks
from tests.project import ROOT

CACHE = ROOT / ".cache/aws"
BLOCKS = blocks(ROOT / "docs/aws.md")


def aws_command_line() -> Path:
    """Install the AWS command line from PyPI unless it is there, and return the folder of its programs."""
    if not (CACHE / "bin/aws").exists():
        venv.create(CACHE, clear=True, with_pip=True)
        subprocess.run([CACHE / "bin/pip", "install", "--quiet", "awscli"], check=True)
    return CACHE / "bin"


def _block(heading: str, in_cloudshell: bool) -> Block:
    """Find the commands under a heading that are for CloudShell, or for the person's own machine."""
    (found,) = (
        block
        for block in BLOCKS
        if block.heading == heading and block.language == "bash" and ("aws iam" in block.text) == in_cloudshell
    )
    return found


def cloudshell(heading: str) -> str:
    """Run a block of the page as an administrator in CloudShell, who has uploaded iam.md, and return its output."""
    programs = f"{aws_command_line()}{os.pathsep}{os.environ['PATH']}"
    # The rehearsal holds only its own key to a policy.
    who = {"AWS_ACCESS_KEY_ID": "administrator", "AWS_SECRET_ACCESS_KEY": "administrator"}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "docs/iam.md", folder)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", _block(heading, in_cloudshell=True).text],
            cwd=folder,
            env=os.environ | who | {"AWS_DEFAULT_REGION": REGION, "AWS_PAGER": "", "PATH": programs},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def laptop(heading: str) -> list[Outcome]:
    """Run the lines of a block of the page in a new shell, as the page says to begin one, and with its credentials."""
    credentials = CACHE.parent / "credentials"
    (written,) = (block.text for block in BLOCKS if block.language == "ini")
    credentials.write_text(written.replace("AKIA...", "rehearsal").replace("...", "rehearsal"), encoding="utf-8")
    # The scenario has values of its own, as a person has in ec2.yml.
    extra = shlex.quote(f"@{variables_file()}")
    begin = (
        "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY\n"
        f"export AWS_SHARED_CREDENTIALS_FILE={shlex.quote(str(credentials))}\n"
        f'ansible-playbook() {{ command ansible-playbook "$@" --extra-vars {extra}; }}\n'
        f"{_block('3. The environment', in_cloudshell=False).text}"
    )
    lines = _block(heading, in_cloudshell=False).text.splitlines()
    outcomes = [Outcome(["bash", "-euo", "pipefail", "-c", f"{begin}{line}"]) for line in lines]
    for outcome in outcomes:
        assert outcome.ok, outcome.said
    return outcomes
