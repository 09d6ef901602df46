"""The fixture of the template tests."""

import pytest

from bench.render import Renderer
from tests.project import ROOT


@pytest.fixture(scope="session")
def render() -> Renderer:
    """Render a template of one of the project's roles, as in ``render("stack", "nginx.conf.j2", stack_port=80)``."""
    return Renderer(ROOT / "roles")
