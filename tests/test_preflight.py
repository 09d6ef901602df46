"""Bad input is refused before anything is touched, in words that say what, where and what is allowed instead."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from plugins.action import preflight
from tests.project import ROOT

OPTIONS = preflight.known_variables(ROOT / "roles")
SERVICES_OPTION = OPTIONS["stack"]["stack_services"]
PATHS = "allowed is a path that begins with /, of letters, digits and the characters . _ ~ - /"
REGION = "eu-central-1"

each_number = pytest.mark.parametrize("name", sorted(preflight.WHOLE_NUMBERS))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with two folders that can be services."""
    for name in ("app", "api"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("ARG BASE\nFROM $BASE\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer as EC2, without a network."""
    monkeypatch.setenv("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws():
        yield


def service(**changes: Any) -> dict[str, Any]:
    """Describe a service that is in order, but for the changes."""
    return {
        "name": "app",
        "context": "app",
        "path": "/",
        "replicas": 3,
        "server": "gunicorn",
        "memory": "128m",
        "cpus": "0.5",
    } | changes


def service_problems(project: Path, *services: dict[str, Any]) -> list[str]:
    """Check some services."""
    return list(preflight.bad_services(list(services), project, SERVICES_OPTION))


def stack(**changes: Any) -> dict[str, Any]:
    """Give the variables that the checks of a machine read."""
    return {
        "ec2_region": REGION,
        "ec2_instance_type": "t2.micro",
        "stack_address": "127.0.0.1",
        "stack_name": "flask-fleet",
        "stack_nginx_memory": "64m",
        "stack_port": 7151,
        "stack_services": [service()],
    } | changes


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@each_number
def test_numbers_are_variables_that_exist(name: str) -> None:
    """A range for a variable that was renamed would check nothing, and a default outside its range everybody."""
    option = next(of_role[name] for of_role in OPTIONS.values() if name in of_role)
    assert option["type"] == "int"
    assert list(preflight.out_of_range({name: option["default"]})) == []


@each_number
def test_number_at_the_edge_is_allowed(name: str) -> None:
    """The message names both bounds as allowed; -e gives numbers as text."""
    for bound in preflight.WHOLE_NUMBERS[name]:
        assert list(preflight.out_of_range({name: bound})) == []
        assert list(preflight.out_of_range({name: str(bound)})) == []


@each_number
def test_number_beyond_the_edge_is_refused(name: str) -> None:
    """Without a range, -1 instances or port 70000 are found by AWS or Docker, half-way through."""
    smallest, largest = preflight.WHOLE_NUMBERS[name]
    for value in (smallest - 1, largest + 1, str(largest + 1)):
        assert list(preflight.out_of_range({name: value})) == [
            f"{name} is {value!r}: allowed is a whole number from {smallest} to {largest}"
        ]


@pytest.mark.parametrize("value", ["three", "", None, True, 2.5, [2]], ids=repr)
@each_number
def test_what_is_no_whole_number_is_refused(name: str, value: object) -> None:
    """Python takes True for 1 and YAML writes it as `yes`."""
    (problem,) = preflight.out_of_range({name: value})
    assert problem.startswith(f"{name} is {value!r}: allowed is a whole number from ")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("stack_servces", "stack_services"),
        ("ec2_instance_typ", "ec2_instance_type"),
        ("docker_manage_exsting", "docker_manage_existing"),
        ("host_swap_mb", "host_swap_mib"),
        ("image_base_pull", "image_base_pulled"),
        # The prefix itself is misspelt.
        ("stak_services", "stack_services"),
        ("ecs2_instance_type", "ec2_instance_type"),
    ],
)
def test_misspelt_variable_is_refused(name: str, meant: str) -> None:
    """Ansible ignores a variable that nobody reads: the default would win without a word."""
    expected = f"{name} is no variable of this project; did you mean {meant}?"
    assert list(preflight.misspelt(["ec2_count", name, "my_own"], OPTIONS)) == [expected]


def test_name_that_resembles_nothing_gets_no_suggestion() -> None:
    """A far-fetched suggestion sends the person the wrong way."""
    assert list(preflight.misspelt(["ec2_qqqqqqqqqqqq"], OPTIONS)) == [
        "ec2_qqqqqqqqqqqq is no variable of this project"
    ]


@pytest.mark.parametrize(
    "name", ["ansible_host", "group_names", "inventory_dir", "my_own", "vault_password", "__stack_internal", "_x"]
)
def test_foreign_variable_is_none_of_our_business(name: str) -> None:
    """Ansible's own variables, and those of other projects in the same inventory, are not misspelt ones of ours."""
    assert list(preflight.misspelt([name], OPTIONS)) == []


def test_every_variable_of_a_role_is_known() -> None:
    """A role whose specification is not read would have all its variables refused."""
    assert set(OPTIONS) == {path.name for path in (ROOT / "roles").iterdir() if (path / "meta").is_dir()}
    assert list(preflight.misspelt([name for of_role in OPTIONS.values() for name in of_role], OPTIONS)) == []


@pytest.mark.parametrize(
    ("name", "value", "shown", "declared"),
    [
        ("ec2_count", "many", "many", "int"),
        ("ec2_public_ports", ["http"], "http", "int"),
        ("docker_manage_existing", "perhaps", "perhaps", "bool"),
        ("stack_images", "flask-fleet/app", "flask-fleet/app", "dict"),
    ],
)
def test_wrong_type_is_refused(name: str, value: object, shown: str, declared: str) -> None:
    """The last role's specification would be validated when the instances already exist and cost money."""
    (problem,) = preflight.wrong_types({name: value}, OPTIONS)
    assert f"'{name}'" in problem
    assert declared in problem
    # Ansible shows the value only where it failed to convert it.
    assert shown in problem or declared == "dict"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ec2_count", "2"),
        ("ec2_public_ports", ["80", 443]),
        ("ec2_ssh_cidrs", "10.0.0.0/8"),
        ("docker_manage_existing", "yes"),
        ("stack_directory", "~/stack"),
    ],
)
def test_type_that_ansible_converts_is_allowed(name: str, value: object) -> None:
    """-e gives everything as text, and the roles accept that."""
    assert list(preflight.wrong_types({name: value}, OPTIONS)) == []


@pytest.mark.parametrize(
    ("size", "mib"),
    [("128m", 128), ("1g", 1024), ("512k", 0.5), ("128M", 128), ("64mb", 64), ("2GB", 2048)],
)
def test_memory_is_read_as_compose_does(size: str, mib: float) -> None:
    """A size that is misread makes the sum of all limits wrong."""
    assert preflight.memory_mib(size) == mib


@pytest.mark.parametrize("size", ["lots", "128", "0m", "-1m", "1.5g", "128 m", "", None, 128], ids=repr)
def test_memory_without_a_unit_is_unreadable(size: object) -> None:
    """Compose would take 128 for 128 bytes."""
    assert preflight.memory_mib(size) is None


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *(("replicas", value, "a whole number from 1 to 50") for value in (0, -1, 51, 1000, "three", True, 2.5, None)),
        *(("server", value, "gunicorn") for value in ("gunicron", "", None)),
        *(("memory", value, "a size such as 128m or 1g") for value in ("lots", "128", 128, "0m", None)),
        *(("cpus", value, "a number above 0, such as 0.5") for value in ("0", -1, "half", "inf", True, None)),
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
        *(("memory", value) for value in ("64m", "1g", "256M")),
        *(("cpus", value) for value in ("0.5", 0.25, 2)),
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


@pytest.mark.parametrize("key", sorted(set(service()) - {"path"}))
def test_missing_key_of_a_service_is_refused(project: Path, key: str) -> None:
    """Every key is required: the sentence is about the key, not a traceback."""
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
    assert list(preflight.bad_services(services, project, SERVICES_OPTION)) == [
        "stack_services has to be a list with at least one service"
    ]


def test_limits_that_fit_exactly_are_allowed() -> None:
    """3 x 128 + 64 MiB beside the system's share fit, and not with one MiB less."""
    needed = 3 * 128 + 64 + preflight.SYSTEM_MIB
    assert list(preflight.too_much_memory(stack(), "this machine", needed)) == []
    assert len(list(preflight.too_much_memory(stack(), "this machine", needed - 1))) == 1


@pytest.mark.parametrize("size", ["lots", "64", "0m"])
def test_memory_of_nginx_has_to_be_a_size(size: str) -> None:
    """It counts in the sum, and Compose refuses it only when the images are built."""
    (problem,) = preflight.too_much_memory(stack(stack_nginx_memory=size), "this machine", 4096)
    assert problem == f"stack_nginx_memory is {size!r}: allowed is a size such as 128m or 1g"


def test_limits_of_all_services_count() -> None:
    """The sentence shows the sum, so that the person sees which number to change."""
    services = [service(), service(name="api", replicas="2", memory="1g")]
    (problem,) = preflight.too_much_memory(stack(stack_services=services), "a t2.micro", 1024)
    assert problem == (
        "stack_services: nginx 64m, 3 x 128m of app, 2 x 1g of api are 2496 MiB, but a t2.micro has 1024 MiB, "
        "of which the system needs 192: allowed are fewer replicas, less memory each, or a larger machine"
    )


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(("instance_type", "mib"), [("t2.micro", 1024), ("t2.medium", 4096)])
def test_memory_of_an_instance_type_is_asked_from_ec2(instance_type: str, mib: int) -> None:
    """A table of our own would be out of date with the next type."""
    client = boto3.client("ec2", region_name=REGION)
    assert preflight.instance_memory(client, instance_type) == mib


@pytest.mark.usefixtures("aws")
def test_unknown_instance_type_is_refused() -> None:
    """RunInstances would refuse it too, but after key pair and security group exist."""
    (problem,) = preflight.ec2_problems(stack(ec2_instance_type="t2.mikro"))
    assert problem.startswith(f"ec2_instance_type is 't2.mikro': {REGION} has no such type; allowed are for example ")
    assert {"t2.micro", "t2.medium"} <= set(problem.split("for example ")[1].split(", "))


@pytest.mark.usefixtures("aws")
def test_instance_type_has_to_hold_the_services() -> None:
    """What a t2.micro cannot hold a t2.medium can."""
    large = [service(replicas=7)]
    (problem,) = preflight.ec2_problems(stack(stack_services=large))
    assert "7 x 128m of app are 960 MiB, but a t2.micro has 1024 MiB, of which the system needs 192" in problem
    assert list(preflight.ec2_problems(stack(stack_services=large, ec2_instance_type="t2.medium"))) == []


def test_other_refusal_of_ec2_is_no_wrong_type() -> None:
    """A missing permission must not be reported as a misspelt type."""
    client = boto3.client("ec2", region_name=REGION)
    with Stubber(client) as stubber:
        stubber.add_client_error("describe_instance_types", "UnauthorizedOperation")
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            preflight.instance_memory(client, "t2.micro")


def test_silent_ec2_is_a_sentence_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal may have been stopped between the inventory and the play."""
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (problem,) = preflight.ec2_problems(stack())
    assert problem.startswith(f"EC2 in {REGION} does not answer as it should: ")
    assert endpoint in problem


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker client first on the PATH that shows what is in a file and notes what it was asked."""
    client = tmp_path / "bin/docker"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/shown\n', encoding="utf-8")
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "shown").touch()
    monkeypatch.setenv("PATH", f"{client.parent}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("listens_on", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - the case under test
def test_port_of_somebody_else_is_refused(listens_on: str) -> None:
    """Compose would find out after the images are built, and with a message about an endpoint."""
    with socket.create_server((listens_on, 0)) as listener:
        port = listener.getsockname()[1]
        assert list(preflight.local_problems(stack(stack_port=port))) == [
            f"stack_port is {port}: something else listens on 127.0.0.1:{port}; allowed is a free port"
        ]


def test_port_of_our_own_stack_is_allowed(docker: Path) -> None:
    """A second run finds its own nginx on the port."""
    (docker / "shown").write_text("0123456789ab\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert list(preflight.local_problems(stack(stack_port=port, stack_name="mine"))) == []
    asked = (docker / "asked").read_text(encoding="utf-8")
    assert f"publish={port}" in asked
    assert "com.docker.compose.project=mine" in asked


def test_free_port_is_allowed_without_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has no engine yet gets one from the docker role."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(preflight.local_problems(stack(stack_port=str(free_port())))) == []


def test_this_machine_has_to_hold_the_services() -> None:
    """Fifty times a hundred gigabytes is more than any machine that this runs on."""
    (problem,) = preflight.local_problems(
        stack(stack_port=free_port(), stack_services=[service(replicas=50, memory="100g")])
    )
    assert "50 x 100g of app are 5120064 MiB, but this machine has " in problem


def run_playbook(tmp_path: Path, **variables: Any) -> "subprocess.CompletedProcess[str]":
    """Run the real playbook on the local inventory, without whatever the shell says about Ansible."""
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "playbooks/preflight.yml",
        "--inventory=inventories/local",
        f"--extra-vars={json.dumps(variables)}",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    environment |= {"ANSIBLE_HOME": str(tmp_path / "ansible"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)


def test_playbook_refuses_bad_input(tmp_path: Path) -> None:
    """All kinds of problems in one message, the run failed, nothing changed."""
    run = run_playbook(
        tmp_path, stack_servces=[], ec2_count=0, ec2_public_ports=["http"], stack_services=[service(replicas="three")]
    )
    said = run.stdout + run.stderr
    assert run.returncode != 0, said
    for sentence in (
        "Nothing was touched. To be mended first:",
        "- stack_servces is no variable of this project; did you mean stack_services?",
        "- ec2_count is 0: allowed is a whole number from 1 to 20",
        "option 'ec2_public_ports'",
        "- stack_services[0] (app): replicas is 'three': allowed is a whole number from 1 to 50",
    ):
        assert sentence in said
    assert "Traceback" not in said
    assert "changed=0" in run.stdout


def test_playbook_looks_at_the_machine_when_the_input_is_in_order(tmp_path: Path) -> None:
    """The second half of the checks is reached, with the variables templated and the defaults filled in."""
    run = run_playbook(
        tmp_path, stack_port=free_port(), stack_services=[service(replicas="{{ 25 * 2 }}", memory="100g")]
    )
    assert run.returncode != 0, run.stdout
    assert "nginx 64m, 50 x 100g of app are 5120064 MiB, but this machine has " in run.stdout + run.stderr


def test_playbook_accepts_the_inventory_as_shipped(tmp_path: Path) -> None:
    """Neither Ansible's own variables nor our own defaults are refused."""
    run = run_playbook(tmp_path, stack_port=free_port())
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ok=1" in run.stdout
