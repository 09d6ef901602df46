"""Fixtures of the tests under faults: the instance, versions of the app, and the book of results."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.faults.app_faults import break_in
from bench.faults.lab import Lab, machine
from bench.faults.rows import Book
from bench.stack import Stack
from tests.project import ROOT

STARTED = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S")


@pytest.fixture
def lab(stack: Stack) -> Lab:
    """Return the instance, with the stack as the inventory describes it."""
    lab = Lab(stack)
    lab.settle()
    return lab


@pytest.fixture
def book(stack: Stack) -> Book:
    """Open the book that all rows of this run go into: $FAULTS_RESULTS, or a new file in faults-results/."""
    book = Book(Path(os.environ.get("FAULTS_RESULTS", ROOT / f"faults-results/{STARTED}.jsonl")))
    book.begin(machine(stack))
    return book


@pytest.fixture
def faulty(stack: Stack, app: Path) -> Lab:
    """Return the instance with an app in it that can be told to misbehave; the next test's ``lab`` removes the app."""
    break_in(app)
    lab = Lab(stack)
    lab.deploy(app)
    return lab
