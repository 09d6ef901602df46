"""The services are checked one by one and together."""

from pathlib import Path
from typing import Any

import pytest
from ansible.constants import INTERNAL_STATIC_VARS

from plugins.filter.sizes import SYSTEM_MIB
from preflight.services import ANSIBLE_NAMES, FLAGS, bad_services, no_room, scaled
from preflight.variables import known_variables
from tests.preflight.input import service, stack
from tests.project import ROOT

SERVICES_OPTION = known_variables(ROOT / "roles")["stack"]["stack_services"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("app", "api"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("ARG BASE\nFROM $BASE\n", encoding="utf-8")
    return tmp_path


def service_problems(project: Path, *services: dict[str, Any]) -> list[str]:
    return list(bad_services(list(services), project, SERVICES_OPTION))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *(("replicas", value, "a whole number from 1 to 50") for value in (0, -1, 51, 1000, "three", True, 2.5, None)),
        *(("server", value, "granian or gunicorn or uwsgi") for value in ("gunicron", "", None)),
        *(("body_bytes", value, "a whole number from 1024 to 2147483647") for value in (0, 1023, 2**31, "20m", None)),
        *(("port", value, "a whole number from 1024 to 32767") for value in (80, 32768, "http", None)),
        *(("timeout_seconds", value, "a whole number from 1 to 3600") for value in (0, 3601, "long", 1.5, None)),
        *(
            ("command", value, "a list of texts, such as [gunicorn, --threads, '8', 'shop:app']")
            for value in ("gunicorn shop:app", [""], ["gunicorn", 8], None)
        ),
        *(
            ("app", value, "module:object, such as wsgi:app or shop:create_app()")
            for value in ("wsgi", "wsgi:", "wsgi:app:app", "wsgi.py:app()()", "", None, 5)
        ),
        *(
            ("memory", one, "a size such as 128m or 1g, at least 6m")
            for one in ("lots", "128", 128, "5m", "6143k", None)
        ),
        *(("cpus", value, "a number above 0, such as 0.5") for value in ("0", -1, "half", "inf", True, None)),
        *((key, value, "true or false") for key in FLAGS for value in ("maybe", 2, None, "")),
        *(("accessories", value, "a list of texts, such as [db]") for value in ("db", None, [1], [""], {"db": 1})),
        *(
            ("pre_deploy", one, "a list of texts, such as [flask, db, upgrade]")
            for one in ("a b", None, ["a", 3], [""])
        ),
    ],
)
def test_bad_value_of_a_service_is_refused(project: Path, key: str, value: object, allowed: str) -> None:
    said = f"stack_services[0] (app): {key} is {value!r}: allowed is {allowed}"
    assert service_problems(project, service(**{key: value})) == [said]


def test_uwsgi_has_two_ports(project: Path) -> None:
    assert service_problems(project, service(port=8080)) == []
    (problem,) = service_problems(project, service(port="8080", server="uwsgi"))
    assert problem.endswith("port is '8080', where uWSGI speaks its own protocol: allowed is another one for HTTP")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("replicas", value) for value in (1, 50, "3")),
        *(("memory", value) for value in ("64m", "1g", "256M", "6m", "6144k")),
        *(("cpus", value) for value in ("0.5", 0.25, 2)),
        *((key, value) for key in FLAGS for value in (True, False, "yes", "false")),
        *(("server", value) for value in ("gunicorn", "uwsgi", "granian")),
        *(("body_bytes", value) for value in (1024, "20971520", 2**31 - 1)),
        *(("port", value) for value in (1024, "5000", 32767)),
        *(("timeout_seconds", value) for value in (1, "600", 3600)),
        *(("accessories", value) for value in ([], ["db"])),
        *(("pre_deploy", value) for value in ([], ["flask", "db", "upgrade"])),
        *(("name", value) for value in ("a", "app-2", "a" * 31)),
        *(("command", value) for value in ([], ["gunicorn", "shop:app"])),
        *(("app", value) for value in ("wsgi:app", "shop.web:create_app()", "shop:Holder.wsgi")),
    ],
)
def test_good_value_of_a_service_is_allowed(project: Path, key: str, value: object) -> None:
    assert service_problems(project, service(**{key: value})) == []


@pytest.mark.parametrize("name", ["App", "1app", "my_app", "-app", "app-", "app.de", "", "a" * 32, "app\n", None])
def test_name_has_to_serve_as_image_and_host_name(project: Path, name: str | None) -> None:
    """It names an image, a DNS entry, an nginx upstream and a container at once."""
    (problem,) = service_problems(project, service(name=name))
    assert problem.startswith(f"stack_services[0] ({name}): name is {str(name)!r}: allowed are small letters, digits")


def test_name_that_means_something_else_is_reserved(project: Path) -> None:
    """A service nginx would be a second image of that name, and groups is Ansible's word for hosts."""
    recipes = {"base", *(path.parent.name for path in (ROOT / "files/images").glob("*/Dockerfile")), "uwsgi"}
    assert len(recipes) > 2
    assert {name for name in INTERNAL_STATIC_VARS if name.isalpha()} < ANSIBLE_NAMES
    reserved = recipes | ANSIBLE_NAMES
    for name in sorted(reserved):
        (problem,) = service_problems(project, service(name=name))
        assert f"name is {name!r}" in problem
        assert f"but not {', '.join(sorted(reserved))}" in problem


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [("replica", "; did you mean replicas?"), ("memmory", "; did you mean memory?"), ("xyzzy", "")],
)
def test_misspelt_key_of_a_service_is_refused(project: Path, key: str, suggestion: str) -> None:
    said = f"stack_services[0] (app): {key} is no key of a service{suggestion}"
    assert service_problems(project, service(**{key: 5})) == [said]


@pytest.mark.parametrize("key", ["context", "name"])
def test_missing_key_of_a_service_is_refused(project: Path, key: str) -> None:
    incomplete = service()
    del incomplete[key]
    (problem,) = service_problems(project, incomplete)
    assert f": {key} is None" in problem or f": {key} is 'None'" in problem


def test_context_that_is_no_folder_is_refused(project: Path) -> None:
    expected = f"stack_services[0] (app): context is 'src': there is no folder {project / 'src'}"
    assert service_problems(project, service(context="src")) == [expected]


@pytest.fixture
def bare(project: Path) -> Path:
    """Remove the Dockerfile of the app, and write the files that are installed instead."""
    (project / "app/Dockerfile").unlink()
    (project / "app/requirements.txt").write_text("Flask~=3.1\nFlask-AppBuilder>=5\n", encoding="utf-8")
    (project / "app/wsgi.py").write_text("app = None\n", encoding="utf-8")
    return project / "app"


def test_folder_without_dockerfile_is_allowed(project: Path, bare: Path) -> None:
    assert service_problems(project, service()) == []
    (bare / "requirements.txt").unlink()
    (bare / "pyproject.toml").write_text("[project]\ndependencies = ['flask']\n", encoding="utf-8")
    assert service_problems(project, service()) == []


def test_folder_with_nothing_to_install_is_refused(project: Path, bare: Path) -> None:
    (bare / "requirements.txt").unlink()
    (problem,) = service_problems(project, service())
    assert problem.startswith(f"stack_services[0] (app): context is 'app': in {bare} is no Dockerfile, and no require")


@pytest.mark.parametrize(
    ("file", "app"),
    [
        ("shop.py", "shop:app"),
        ("shop/__init__.py", "shop:create_app()"),
        ("shop/web.py", "shop.web:app"),
        ("src/shop/web.py", "shop.web:app"),
        # Brought by the requirement of that name.
        ("wsgi.py", "flask_appbuilder:app"),
        ("wsgi.py", "flask.appbuilder.web:app"),
    ],
)
def test_module_of_the_folder_is_found(project: Path, bare: Path, file: str, app: str) -> None:
    (bare / file).parent.mkdir(parents=True, exist_ok=True)
    (bare / file).touch()
    assert service_problems(project, service(app=app)) == []


@pytest.mark.parametrize(("app", "file"), [("shop:app", "shop.py"), ("shop.web:app", "shop/web.py")])
def test_missing_module_is_refused(project: Path, bare: Path, app: str, file: str) -> None:
    """The message names the file that was looked for; an image of one's own may have its modules anywhere."""
    (problem,) = service_problems(project, service(app=app))
    assert problem.startswith(f"stack_services[0] (app): app is {app!r}: there is no {file} in {bare}; an application")
    assert service_problems(project, service(app=app, command=["python3", "-m", "shop"])) == []
    (bare / "Dockerfile").write_text("ARG BASE\nFROM ${BASE} AS packages\n", encoding="utf-8")
    assert service_problems(project, service(app=app)) == []


@pytest.mark.parametrize("text", ["FROM python:3.13-slim\n", "ARG BASE=x\nFROM $BASED\n", "# FROM $BASE\n"])
def test_dockerfile_without_the_base_is_refused(project: Path, text: str) -> None:
    """Unless the entry says so, such an image has no server that stops without losing a request."""
    file = project / "app/Dockerfile"
    file.write_text(text, encoding="utf-8")
    (problem,) = service_problems(project, service())
    assert problem.startswith(f"stack_services[0] (app): context is 'app': no line of {file} is FROM ${{BASE}}")
    assert service_problems(project, service(command=["python3", "-m", "shop"])) == []


@pytest.mark.parametrize(
    ("environment", "name"), [({}, "PORT"), ({}, "APP"), ({}, "PYTHONPATH"), ({"DATABASE_URL": "none"}, "DATABASE_URL")]
)
def test_secret_does_not_replace_a_variable(project: Path, environment: dict[str, str], name: str) -> None:
    """In capitals a secret becomes an environment variable, and one of the two values would be lost."""
    secrets = {name: "3f9c1d6a5b7e", "other": "3f9c1d6a5b7e"}
    said = f"the secret {name} has the name of an environment variable that is set: allowed is another name"
    assert service_problems(project, service(environment=environment, secrets=secrets)) == [
        f"stack_services[0] (app): {said}"
    ]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ENV PYTHONPATH=lib", "PYTHONPATH"),
        ("env A=b \\\n    PATH=/srv/bin", "PATH"),
        ("ENV PYTHONPATH lib", "PYTHONPATH"),
        ("ENV PYTHONPATH=lib:$PYTHONPATH", None),
        ("ENV PATH=/srv/bin:${PATH}", None),
        ("ENV MY_PATH=lib", None),
        ("# ENV PATH=lib", None),
    ],
)
def test_dockerfile_adds_to_the_paths_of_the_image(project: Path, line: str, name: str | None) -> None:
    """If it replaced them, neither the server nor our package would be found, and only after the build."""
    file = project / "app/Dockerfile"
    file.write_text(f"ARG BASE\nFROM $BASE\n{line}\n", encoding="utf-8")
    problems = service_problems(project, service())
    assert [f"{file} sets {name}, and" in problem for problem in problems] == [True] * bool(name)


def test_several_services_are_allowed(project: Path, tmp_path: Path) -> None:
    assert service_problems(project, service(), service(name="api", context=str(tmp_path / "api"), path="/api")) == []


def test_duplicate_name_is_refused(project: Path) -> None:
    (problem,) = service_problems(project, service(), service(context="api", path="/api"))
    assert problem == "stack_services: two services have the name app"


def test_every_problem_is_said_at_once(project: Path) -> None:
    api = service(name="api", context="api", path="/api", cpus="no")
    problems = service_problems(project, service(replicas=0, memory="lots"), api)
    assert [problem.split(" is ")[0] for problem in problems] == [
        "stack_services[0] (app): replicas",
        "stack_services[0] (app): memory",
        "stack_services[1] (api): cpus",
    ]


@pytest.mark.parametrize("services", [None, [], {}, "app", ["app"], [{}, "app"]], ids=repr)
def test_services_have_to_be_a_list_of_mappings(project: Path, services: object) -> None:
    (problem,) = bad_services(services, project, SERVICES_OPTION)
    assert problem == "stack_services has to be a list with at least one service"


def test_limits_that_fit_exactly_are_allowed() -> None:
    needed = 3 * 128 + 64 + SYSTEM_MIB
    assert list(no_room(stack(), "this machine", 2, needed)) == []
    assert len(list(no_room(stack(), "this machine", 2, needed - 1))) == 1


@pytest.mark.parametrize("size", ["lots", "64", "0m", "5m"])
def test_memory_of_nginx_has_to_be_a_size(size: str) -> None:
    """It is part of the sum, and Compose refuses it only when the images are built."""
    (problem,) = no_room(stack(stack_nginx_memory=size), "this machine", 2, 4096)
    assert problem == f"stack_nginx_memory is {size!r}: allowed is a size such as 128m or 1g, at least 6m"


def test_limits_of_all_services_count() -> None:
    services = [service(), service(name="api", replicas="2", memory="1g")]
    (problem,) = no_room(stack(stack_services=services), "a t2.micro", 1, 1024)
    assert problem == (
        "stack_services: nginx 64m, 3 x 128m of app, 2 x 1g of api are 2496 MiB, but a t2.micro has 1024 MiB, "
        "of which the system needs 192: allowed are fewer replicas, less memory each, or a larger machine"
    )


def test_what_a_service_leaves_to_the_machine_is_in_order(project: Path) -> None:
    short = service()
    for key in ("replicas", "memory", "cpus", "path", "server"):
        del short[key]
    assert service_problems(project, short) == []
    assert list(no_room(stack(stack_services=[short]), "a t2.micro", 1, 1024)) == []


def test_only_the_scaled_service_gets_a_number() -> None:
    short = {"name": "api"}
    assert scaled([service(), short], {"app": 7}) == [service(replicas=7), short]
