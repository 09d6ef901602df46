"""A test runs every command of the page about AWS, except those that need AWS itself."""

import re

from tests.page import blocks
from tests.project import ROOT

BLOCKS = blocks(ROOT / "docs/aws.md")

ONLY_AWS = {"aws configure", "aws login", "eval"}
"""Beginnings of commands that open a browser, or ask for the code of a device."""


def test_every_block_says_what_it_is() -> None:
    """The tests in molecule/aws run bash blocks and write ini blocks to a file."""
    assert {block.language for block in BLOCKS} == {"bash", "ini", "sh", "text"}


def test_what_is_not_run_is_what_only_aws_has() -> None:
    """Everything else is run as it is written."""
    lines = [line for block in BLOCKS if block.language == "text" for line in block.text.splitlines()]
    assert [line for line in lines if not line.startswith(tuple(ONLY_AWS))] == []


def test_the_environment_is_made_as_by_make() -> None:
    """The tests themselves run in the environment that these commands make."""
    (block,) = [block for block in BLOCKS if block.language == "sh"]
    makefile = (
        (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(PYTHON)", "python3").replace("$(VENV)", ".venv")
    )
    steps = re.search(r"locked requirements,(.*)\)$", makefile, re.MULTILINE)
    assert steps
    assert steps[1].split("; ") == block.text.splitlines()
