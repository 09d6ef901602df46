"""What the template tests share."""

from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest
from jinja2 import Environment

from bench.render import Renderer
from tests.project import ROOT


@pytest.fixture(scope="session")
def render() -> Renderer:
    """Render a template of one of the project's roles, as in ``render("stack", "nginx.conf.j2", stack_port=80)``."""
    return Renderer(ROOT / "roles")


@pytest.fixture(scope="session", autouse=True)
def _each_text_is_compiled_once() -> Iterator[None]:
    """Keep the code of each template, which Ansible compiles anew whenever it renders one."""
    kept: dict[Any, CodeType] = {}
    compile_anew: Any = Environment.compile

    def compile_once(environment: Environment, source: Any, *arguments: Any, **options: Any) -> CodeType:
        # Environments with the same syntax share their lexer.
        key = (type(environment), environment.lexer, source, arguments, *options.items())
        if key not in kept:
            kept[key] = compile_anew(environment, source, *arguments, **options)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Environment, "compile", compile_once)
        yield
