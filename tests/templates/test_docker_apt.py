"""The apt files of Debian 12, which take two packages from the next release and no other."""

import pytest

from bench.render import MANAGED, Renderer

FOLDER = "etc/apt"


def stanzas(text: str) -> list[dict[str, str]]:
    """Read a file of fields as apt does, without comments; empty lines separate the stanzas."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [dict(line.split(": ", 1) for line in part.splitlines()) for part in lines.strip().split("\n\n")]


@pytest.mark.parametrize("mirror", ["http://mirror.example/debian", "https://other.example/debian/"])
def test_source_is_the_mirror_that_the_machine_uses(render: Renderer, mirror: str) -> None:
    """A machine behind a mirror may reach nothing else; Debian's own keys verify the packages."""
    text = render(
        "docker",
        f"{FOLDER}/sources.list.d/flask-fleet.sources.j2",
        __docker_mirrors={"stdout_lines": [mirror, "http://second.example/debian"]},
    )
    assert text.startswith(f"#\n# {MANAGED}\n#\n")
    keys = {"Signed-By": "/usr/share/keyrings/debian-archive-keyring.gpg"}
    assert stanzas(text) == [{"Types": "deb", "URIs": mirror, "Suites": "trixie", "Components": "main"} | keys]


def test_nothing_else_is_upgraded_to_the_next_release(render: Renderer) -> None:
    """Without the first pin the next `apt upgrade` would turn Debian 12 into 13."""
    text = render("docker", f"{FOLDER}/preferences.d/flask-fleet.j2")
    assert text.startswith(f"#\n# {MANAGED}\n#\n")
    everything, ours = stanzas(text)
    assert everything == {"Package": "*", "Pin": "release n=trixie", "Pin-Priority": "-1"}
    assert ours == {"Package": "docker-buildx docker-compose", "Pin": "release n=trixie", "Pin-Priority": "500"}


def test_source_and_pins_are_about_the_same_release(render: Renderer) -> None:
    mirrors = {"stdout_lines": ["http://mirror.example/debian"]}
    source, pins = (
        render("docker", f"{FOLDER}/{name}.j2", __docker_backports_suite="forky", __docker_mirrors=mirrors)
        for name in ("sources.list.d/flask-fleet.sources", "preferences.d/flask-fleet")
    )
    assert stanzas(source)[0]["Suites"] == "forky"
    assert {stanza["Pin"] for stanza in stanzas(pins)} == {"release n=forky"}
