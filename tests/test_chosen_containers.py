"""Whose logs are shown: what is asked for, or nothing, never somebody else's."""

import pytest

from roles.stack.filter_plugins.chosen_containers import chosen_containers

LISTED = [
    "app 0a1b2c3d4e5f flask-fleet-app-1 1",
    "app 0a9988776655 flask-fleet-app-2 2",
    "api 5544332211aa flask-fleet-api-1 1",
    "nginx ffeeddccbbaa flask-fleet-nginx-1 1",
]


@pytest.mark.parametrize(
    ("service", "replica", "names"),
    [
        ("", "", ["app-1", "app-2", "api-1", "nginx-1"]),
        ("app", "", ["app-1", "app-2"]),
        ("nginx", "", ["nginx-1"]),
        ("", "0a1b2c3d4e5f", ["app-1"]),
        ("", "0a1b", ["app-1"]),
        ("", "flask-fleet-api-1", ["api-1"]),
        ("app", "0a99", ["app-2"]),
        # Two of them, somebody else's, nobody's, a part of a name.
        ("", "0a", []),
        ("api", "0a1b", []),
        ("web", "", []),
        ("", "ffff", []),
        ("", "app-1", []),
    ],
)
def test_the_containers_are_those_that_were_asked_for(service: str, replica: str, names: list[str]) -> None:
    """By service, by id as the page and status.yml show it, by name, or by both."""
    found = [one["name"].removeprefix("flask-fleet-") for one in chosen_containers(LISTED, service, replica)]
    assert found == names


def test_its_number_comes_along() -> None:
    """Compose knows a replica by it."""
    assert chosen_containers(LISTED, "", "0a99")[0] == {
        "service": "app",
        "id": "0a9988776655",
        "name": "flask-fleet-app-2",
        "number": "2",
    }
