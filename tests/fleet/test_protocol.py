"""A label of each replica names the protocol that nginx uses, also in releases of earlier versions of this project."""

import json
from pathlib import Path

import pytest

from fleet.engine.compose import Compose
from fleet.release import Releases
from tests.fake_docker import Docker


@pytest.mark.parametrize(
    ("labels", "protocol"),
    [
        ({"flask-fleet.protocol": "uwsgi"}, "uwsgi"),
        ({"flask-fleet.protocol": "http"}, "http"),
        ({"flask-fleet.server": "uwsgi"}, "uwsgi"),
        ({"flask-fleet.server": "granian"}, "http"),
        ({"flask-fleet.ports": "noted"}, ""),
    ],
)
def test_label_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str], protocol: str) -> None:
    """During a roll-out both may run beside each other, and nginx must speak what all of them understand."""
    state = {"Running": True, "Restarting": False, "ExitCode": 0, "OOMKilled": False, "StartedAt": ""}
    container = {
        "Id": "id-of-app",
        "Name": "/app-1",
        "RestartCount": 0,
        "State": state,
        "Config": {"Labels": labels, "Env": []},
        "NetworkSettings": {"Networks": {}},
    }
    Docker(tmp_path / "bin", monkeypatch).answer("inspect", says=json.dumps([container]))
    (replica,) = Compose(Releases(tmp_path)).replicas(["id-of-app"])
    assert replica.protocol == protocol
