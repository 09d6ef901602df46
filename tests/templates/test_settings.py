"""settings.json of the stack: what a roll-out goes by."""

import json

from bench.render import Renderer
from fleet.stack import Settings
from tests.project import SERVICE


def test_each_setting_is_the_variable_of_its_name(render: Renderer) -> None:
    """One that is left out would silently be the default of the machine's program."""
    wanted = Settings(
        surge=2, start_seconds=3, keep_releases=4, pre_deploy={"app": ["flask", "db", "upgrade"]}, pre_deploy_seconds=5
    )
    said = render.value(
        "stack",
        "{{ __stack_settings }}",
        stack_surge=2,
        stack_start_seconds=3,
        stack_keep_releases=4,
        stack_pre_deploy_seconds=5,
        stack_services=[SERVICE | {"pre_deploy": ["flask", "db", "upgrade"]}, SERVICE | {"name": "api"}],
    )
    assert Settings(**json.loads(json.dumps(said))) == wanted
