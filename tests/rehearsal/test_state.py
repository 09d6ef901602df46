"""What is kept on disk survives a crash."""

import pytest

from rehearsal.errors import RehearsalError
from rehearsal.state import Settings, State, exports


def test_settings_survive_on_disk(settings: Settings, state: State) -> None:
    assert state.load() is None
    state.save(settings)
    assert state.load() == settings
    assert state.with_pid(settings, 42).pid == 42
    assert (state.path / "pid").read_text(encoding="utf-8") == "42\n"


@pytest.mark.parametrize("left", ["", "{", "[]", '{"name": "trial"}', '{"unknown": 1}'])
def test_files_of_a_crash_count_as_not_running(settings: Settings, state: State, left: str) -> None:
    state.save(settings)
    (state.path / "api.json").write_text(left, encoding="utf-8")
    assert state.load() is None


@pytest.mark.parametrize("name", ["", "Big", "a_b", "../etc", "1st", "x" * 32, "local", "receipts"])
def test_names_that_docker_or_a_path_would_not_take_are_refused(name: str) -> None:
    """The name becomes part of container names, a label and a directory."""
    with pytest.raises(RehearsalError, match="--name"):
        State.of(name)


def test_environment_is_ready_for_eval(settings: Settings, state: State) -> None:
    state.save(settings)
    assert exports(settings).splitlines() == [
        "export AWS_ENDPOINT_URL=http://127.0.0.1:7199",
        "export AWS_ACCESS_KEY_ID=rehearsal",
        "export AWS_SECRET_ACCESS_KEY=rehearsal",
        "export AWS_EC2_METADATA_DISABLED=true",
        "export NO_PROXY='*'",
        "export no_proxy='*'",
    ]
    assert (state.path / "env").read_text(encoding="utf-8") == exports(settings)
