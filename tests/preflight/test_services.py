"""The services, each of them and together."""

from pathlib import Path
from typing import Any

import pytest

from plugins.filter.sizes import SYSTEM_MIB
from preflight.services import bad_services, no_room, scaled
from preflight.variables import known_variables
from tests.preflight.input import service, stack
from tests.project import ROOT

SERVICES_OPTION = known_variables(ROOT / "roles")["stack"]["stack_services"]
PATHS = "allowed is a path that begins with /, of letters, digits and the characters . _ ~ - /"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with two folders that can be services."""
    for name in ("app", "api"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("ARG BASE\nFROM $BASE\n", encoding="utf-8")
    return tmp_path


def service_problems(project: Path, *services: dict[str, Any]) -> list[str]:
    """Check some services."""
    return list(bad_services(list(services), project, SERVICES_OPTION))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *(("replicas", value, "a whole number from 1 to 50") for value in (0, -1, 51, 1000, "three", True, 2.5, None)),
        *(("server", value, "gunicorn") for value in ("gunicron", "", None)),
        *(
            ("memory", value, "a size such as 128m or 1g, at least 6m")
            for value in ("lots", "128", 128, "0m", "5m", "6143k", None)
        ),
        *(("cpus", value, "a number above 0, such as 0.5") for value in ("0", -1, "half", "inf", True, None)),
        *(("internet", value, "true or false") for value in ("maybe", 2, None, "")),
        *(("accessories", value, "a list of texts, such as [db]") for value in ("db", None, [1], [""], {"db": 1})),
        *(
            ("pre_deploy", value, "a list of texts, such as [flask, db, upgrade]")
            for value in ("flask db upgrade", None, ["sleep", 3], [""])
        ),
    ],
)
def test_bad_value_of_a_service_is_refused(project: Path, key: str, value: object, allowed: str) -> None:
    """The sentence says which service, which key, what it is and what it may be; and it is the only one."""
    assert service_problems(project, service(**{key: value})) == [
        f"stack_services[0] (app): {key} is {value!r}: allowed is {allowed}"
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("replicas", value) for value in (1, 50, "3")),
        *(("memory", value) for value in ("64m", "1g", "256M", "6m", "6144k")),
        *(("cpus", value) for value in ("0.5", 0.25, 2)),
        *(("internet", value) for value in (True, False, "yes", "false")),
        *(("accessories", value) for value in ([], ["db"])),
        *(("pre_deploy", value) for value in ([], ["flask", "db", "upgrade"])),
        *(("name", value) for value in ("a", "app-2", "a" * 31)),
    ],
)
def test_good_value_of_a_service_is_allowed(project: Path, key: str, value: object) -> None:
    """A check that refuses what works is worse than none."""
    assert service_problems(project, service(**{key: value})) == []


@pytest.mark.parametrize("path", ["api", "", None, "http://example.org/", "/a b", "/;", "/a {"])
def test_path_has_to_begin_with_a_slash(project: Path, path: str | None) -> None:
    """Nginx compares with the beginning of what was asked for, and that is a slash."""
    problems = service_problems(project, service(), service(name="api", context="api", path=path))
    assert problems == [f"stack_services[1] (api): path is {path!r}: {PATHS}"]


@pytest.mark.parametrize("name", ["App", "1app", "my_app", "-app", "app.de", "", "a" * 32, "app\n", None])
def test_name_has_to_serve_as_image_and_host_name(project: Path, name: str | None) -> None:
    """It names an image, a DNS entry, an nginx upstream and a container at once."""
    (problem,) = service_problems(project, service(name=name))
    assert problem.startswith(f"stack_services[0] ({name}): name is {str(name)!r}: allowed are small letters, digits")


def test_name_of_a_recipe_is_reserved(project: Path) -> None:
    """A service named nginx would be the second image and the second container of that name."""
    reserved = {"base", *(path.parent.name for path in (ROOT / "files/images").glob("*/Dockerfile"))}
    assert len(reserved) > 1
    for name in sorted(reserved):
        (problem,) = service_problems(project, service(name=name))
        assert f"name is {name!r}" in problem
        assert f"but not {', '.join(sorted(reserved))}" in problem


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("replica", "; did you mean replicas?"), ("memmory", "; did you mean memory?"), ("xyzzy", "")],
)
def test_misspelt_key_of_a_service_is_refused(project: Path, key: str, suggestion: str) -> None:
    """Ansible's own message would list all keys and not say which entry it is about."""
    assert service_problems(project, service(**{key: 5})) == [
        f"stack_services[0] (app): {key} is no key of a service{suggestion}"
    ]


@pytest.mark.parametrize("key", ["context", "name", "server"])
def test_missing_key_of_a_service_is_refused(project: Path, key: str) -> None:
    """It is required: the sentence is about the key, not a traceback."""
    incomplete = service()
    del incomplete[key]
    (problem,) = service_problems(project, incomplete)
    assert f": {key} is None" in problem or f": {key} is 'None'" in problem


def test_context_that_is_no_folder_is_refused(project: Path) -> None:
    """The sentence names the folder that was looked for, because a relative one starts where few expect it."""
    expected = f"stack_services[0] (app): context is 'src': there is no folder {project / 'src'}"
    assert service_problems(project, service(context="src")) == [expected]


def test_context_without_dockerfile_is_refused(project: Path) -> None:
    """Without a Dockerfile the build fails when the instance already runs."""
    (project / "app/Dockerfile").unlink()
    expected = f"stack_services[0] (app): context is 'app': there is no Dockerfile in {project / 'app'}"
    assert service_problems(project, service()) == [expected]


def test_absolute_context_is_allowed(project: Path, tmp_path: Path) -> None:
    """An app may live beside this project."""
    assert service_problems(project, service(context=str(tmp_path / "api"))) == []


def test_several_services_are_allowed(project: Path) -> None:
    """The checks of all services together do not refuse what is different."""
    assert service_problems(project, service(), service(name="api", context="api", path="/api")) == []


@pytest.mark.parametrize(
    ("key", "value", "second"),
    [("name", "app", {"context": "api", "path": "/api"}), ("path", "/", {"name": "api", "context": "api"})],
)
def test_duplicate_is_refused(project: Path, key: str, value: str, second: dict[str, Any]) -> None:
    """Of two equal names Compose would take one; two equal locations are an error that only nginx would find."""
    assert service_problems(project, service(), service(**second)) == [
        f"stack_services: two services have the {key} {value}"
    ]


def test_somebody_has_to_have_the_root(project: Path) -> None:
    """Without it every request to / is a 404, and the last play cannot see who answers."""
    assert service_problems(project, service(path="/api")) == ["stack_services: no service has the path /"]


def test_every_problem_is_said_at_once(project: Path) -> None:
    """Whoever mends one thing per run gives up."""
    problems = service_problems(
        project, service(replicas=0, memory="lots"), service(name="api", context="api", path="/api", cpus="no")
    )
    assert [problem.split(" is ")[0] for problem in problems] == [
        "stack_services[0] (app): replicas",
        "stack_services[0] (app): memory",
        "stack_services[1] (api): cpus",
    ]


@pytest.mark.parametrize("services", [None, [], {}, "app", ["app"], [{}, "app"]], ids=repr)
def test_services_have_to_be_a_list_of_mappings(project: Path, services: object) -> None:
    """A list that is forgotten or badly indented has no keys to talk about."""
    assert list(bad_services(services, project, SERVICES_OPTION)) == [
        "stack_services has to be a list with at least one service"
    ]


def test_limits_that_fit_exactly_are_allowed() -> None:
    """3 x 128 + 64 MiB beside the system's share fit, and not with one MiB less."""
    needed = 3 * 128 + 64 + SYSTEM_MIB
    assert list(no_room(stack(), "this machine", 2, needed)) == []
    assert len(list(no_room(stack(), "this machine", 2, needed - 1))) == 1


@pytest.mark.parametrize("size", ["lots", "64", "0m", "5m"])
def test_memory_of_nginx_has_to_be_a_size(size: str) -> None:
    """It counts in the sum, and Compose refuses it only when the images are built."""
    (problem,) = no_room(stack(stack_nginx_memory=size), "this machine", 2, 4096)
    assert problem == f"stack_nginx_memory is {size!r}: allowed is a size such as 128m or 1g, at least 6m"


def test_limits_of_all_services_count() -> None:
    """The sentence shows the sum, so that the person sees which number to change."""
    services = [service(), service(name="api", replicas="2", memory="1g")]
    (problem,) = no_room(stack(stack_services=services), "a t2.micro", 1, 1024)
    assert problem == (
        "stack_services: nginx 64m, 3 x 128m of app, 2 x 1g of api are 2496 MiB, but a t2.micro has 1024 MiB, "
        "of which the system needs 192: allowed are fewer replicas, less memory each, or a larger machine"
    )


def test_what_a_service_leaves_to_the_machine_is_in_order(project: Path) -> None:
    """The shortest form that works is the one that is shipped."""
    short = service()
    for key in ("replicas", "memory", "cpus"):
        del short[key]
    assert service_problems(project, short) == []
    assert list(no_room(stack(stack_services=[short]), "a t2.micro", 1, 1024)) == []


def test_only_the_scaled_service_gets_a_number() -> None:
    """The others keep theirs, or leave it to the machine."""
    short = {"name": "api"}
    assert scaled([service(), short], {"app": 7}) == [service(replicas=7), short]
