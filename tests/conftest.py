"""Keeps the fast tests fast and away from everything real."""

import functools
import gc
import os

import botocore.session
import pytest
from botocore.loaders import create_loader

from rehearsal import daemon

# moto reads its options when it is imported, so they are set before any test is.
# AWS's own policies, which no test here asks for, take it half a second each time.
os.environ.update(daemon.moto_environment() | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "false"})

# Each session would read the models of AWS's services anew, which takes as long as hundreds of calls.
botocore.session.create_loader = functools.cache(create_loader)

# What collecting makes stays until the end; to look for garbage in it took a tenth of the whole run.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark of the tests that need an engine."""
    config.addinivalue_line("markers", "docker: real instances or containers; only with `pytest -m docker`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need Docker unless they are asked for."""
    if "docker" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("docker")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Begin to look for garbage, in what tests make."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_real_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the account of whoever runs it."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
