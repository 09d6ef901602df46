"""A receipt is left by what passed, and covers exactly what it was run with."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from preflight import receipts
from tests.preflight.input import IMAGE
from tests.project import ROOT

CONTEXTS = ["app"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a small project."""
    for name, text in {
        "site.yml": "- name: Go\n",
        "requirements.txt": "flask==3\n",
        "playbooks/deploy.yml": "- name: Deploy\n",
        "roles/stack/tasks/main.yml": "# Why.\n- name: Run\n",
        "plugins/action/preflight.py": "pass\n",
        "files/images/nginx/Dockerfile": "FROM base\n",
        "app/Dockerfile": "FROM base\n",
        "docs/aws.md": "# AWS\n",
        "inventories/aws/group_vars/all/ec2.yml": "ec2_count: 1\n",
    }.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "project"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep receipts away from the person's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/flask-fleet/receipts"


def digest(project: Path) -> str:
    """Hash the small project."""
    return receipts.fingerprint(project, project / "inventories/aws", CONTEXTS)


def append(name: str) -> Callable[[Path], None]:
    """Change a file by a comment."""

    def change(project: Path) -> None:
        with (project / name).open("a") as file:
            file.write("# more\n")

    return change


def within(name: str) -> Callable[[Path], None]:
    """Leave a file behind, as a tool does."""

    def change(project: Path) -> None:
        (project / name).parent.mkdir(parents=True)
        (project / name).write_text("x")

    return change


CHANGES: dict[str, Callable[[Path], object]] = {
    "comment in a role": append("roles/stack/tasks/main.yml"),
    "playbook": append("playbooks/deploy.yml"),
    "site.yml": append("site.yml"),
    "plugin": append("plugins/action/preflight.py"),
    "image": append("files/images/nginx/Dockerfile"),
    "app": append("app/Dockerfile"),
    "requirement": append("requirements.txt"),
    "variable of the inventory": append("inventories/aws/group_vars/all/ec2.yml"),
    "new file": lambda project: (project / "app/.dockerignore").write_text("tests\n"),
    "removed file": lambda project: (project / "roles/stack/tasks/main.yml").unlink(),
    "renamed file": lambda project: (project / "app/Dockerfile").rename(project / "app/Containerfile"),
    "executable file": lambda project: (project / "app/Dockerfile").chmod(0o755),
}


@pytest.mark.parametrize("what", CHANGES)
def test_change_makes_another_fingerprint(project: Path, what: str) -> None:
    """Whatever decides what happens on AWS has to be proved again."""
    before = digest(project)
    CHANGES[what](project)
    assert digest(project) != before


UNIMPORTANT: dict[str, Callable[[Path], object]] = {
    "compiled Python": within("app/__pycache__/views.pyc"),
    "git": within("roles/.git/index"),
    "ruff": within("plugins/.ruff_cache/0.17/1"),
    "documentation": append("docs/aws.md"),
    "time": lambda project: os.utime(project / "site.yml", (1, 1)),
}


@pytest.mark.parametrize("what", UNIMPORTANT)
def test_what_decides_nothing_changes_nothing(project: Path, what: str) -> None:
    """Python leaves its files everywhere; a receipt that they invalidate is never there."""
    before = digest(project)
    UNIMPORTANT[what](project)
    assert digest(project) == before


def test_place_of_the_project_does_not_matter(project: Path, tmp_path: Path) -> None:
    """Two people who cloned the same commit have the same fingerprint."""
    assert digest(project) == digest(Path(shutil.copytree(project, tmp_path / "elsewhere")))


def test_app_outside_the_project_is_covered(project: Path, tmp_path: Path) -> None:
    """A service's folder may be anywhere."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "Dockerfile").write_text("FROM base\n")
    inventory = project / "inventories/aws"
    before = receipts.fingerprint(project, inventory, [str(other)])
    append("Dockerfile")(other)
    assert receipts.fingerprint(project, inventory, [str(other)]) != before


def test_this_project_has_what_is_covered() -> None:
    """A folder that was renamed would silently no longer be covered."""
    assert [name for name in receipts.COVERED if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("outcomes", "passed"),
    [
        ({"passed": [1, 2], "": [1, 2, 3]}, 2),
        ({"passed": [1], "warnings": [1]}, 1),
        ({}, 0),
        *(({"passed": [1], outcome: [1]}, 0) for outcome in receipts.LESS_THAN_PASSED),
    ],
)
def test_only_a_complete_pass_proves(outcomes: dict[str, list[int]], passed: int) -> None:
    """A test that was skipped or left out with -k is one that proved nothing."""
    assert receipts.complete(outcomes) == passed


def test_receipt_of_the_whole_way_lets_go_ahead(state: Path) -> None:
    """The sentence says what, how much and when."""
    receipts.write("default", 10, "a" * 64)
    receipts.write("rollout", 14, "a" * 64)
    said, go_ahead = receipts.proof("a" * 64, [], unproven=False)
    assert go_ahead
    assert said.startswith("Proved by scenario default, 10 tests, 20")
    assert "; scenario rollout, 14 tests, 20" in said
    assert sorted(path.name for path in state.iterdir()) == ["default-aaaaaaaaaaaa.json", "rollout-aaaaaaaaaaaa.json"]


def test_what_e_gives_is_not_covered() -> None:
    """The test was run with the inventory's values."""
    receipts.write("default", 10, "a" * 64)
    said, _ = receipts.proof("a" * 64, ["ec2_count", "ec2_ami_id"], unproven=False)
    assert said.endswith(", apart from what -e gives: ec2_ami_id, ec2_count")


def test_without_a_receipt_it_stops_and_names_the_command() -> None:
    """The receipts of another state, of another scenario or of nobody are no proof."""
    receipts.write("default", 10, "b" * 64)
    said, go_ahead = receipts.proof("a" * 64, [], unproven=False)
    assert not go_ahead
    assert "molecule test -s default   (or all scenarios: make molecule); or -e ec2_unproven=true" in said
    receipts.write("rollout", 14, "a" * 64)
    said, go_ahead = receipts.proof("a" * 64, [], unproven=False)
    assert not go_ahead
    assert "(only scenario rollout, 14 tests, " in said


def test_unproven_goes_ahead_and_says_so() -> None:
    """Once, aloud; a receipt that is there is told all the same."""
    said, go_ahead = receipts.proof("a" * 64, [], unproven=True)
    assert (said.partition(":")[0], go_ahead) == ("UNPROVEN", True)
    receipts.write("default", 10, "a" * 64)
    assert receipts.proof("a" * 64, [], unproven=True)[0].startswith("Proved by")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"scenario": "default"}'])
def test_damaged_receipt_is_none(state: Path, content: str) -> None:
    """A half-written file must not stop or prove anything."""
    state.mkdir(parents=True)
    (state / f"default-{'a' * 12}.json").write_text(content)
    assert receipts.find("a" * 64) == []


def terminate(endpoint: str) -> None:
    """Leave no instance to the next test: moto's memory is the process's."""
    ec2 = boto3.client("ec2", region_name="eu-central-1", endpoint_url=endpoint)
    groups = ec2.describe_instances()["Reservations"]
    ec2.terminate_instances(InstanceIds=[one["InstanceId"] for group in groups for one in group["Instances"]])


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Answer as the rehearsal does after a scenario made its instance."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    ec2 = boto3.client("ec2", region_name="eu-central-1", endpoint_url=url)
    ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)
    yield url
    terminate(url)
    server.stop()


def run_scenario(tmp_path: Path, text: str, *arguments: str, **environment: str) -> list[Path]:
    """Run pytest as Molecule does, with the scenarios' own conftest, and return the receipts."""
    folder = tmp_path / "molecule/default/tests"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "molecule/conftest.py", tmp_path / "molecule")
    (folder / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(folder)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        check=False,
        timeout=120,
    )
    return sorted(receipts.folder().glob("*.json"))


PASSES = "def test_one():\n    pass\n\n\ndef test_two():\n    pass\n"


def test_green_scenario_leaves_a_receipt(tmp_path: Path, endpoint: str) -> None:
    """From end to end: what the scenario leaves is what preflight finds."""
    (left,) = run_scenario(tmp_path, PASSES, MOLECULE_SCENARIO_NAME="default", AWS_ENDPOINT_URL=endpoint)
    receipt = json.loads(left.read_text())
    assert (receipt["scenario"], receipt["tests"]) == ("default", 2)
    expected = receipts.fingerprint(ROOT, ROOT / "inventories/aws", CONTEXTS)
    assert receipt["fingerprint"] == expected
    assert receipts.proof(expected, [], unproven=False)[1]


@pytest.mark.parametrize(
    ("text", "arguments", "scenario"),
    [
        (f"{PASSES}\n\ndef test_three():\n    assert False\n", [], "default"),
        (PASSES, ["-k", "one"], "default"),
        ("", [], "default"),
        (PASSES, [], ""),
    ],
    ids=["one failed", "one left out", "no test", "no scenario"],
)
def test_anything_less_leaves_none(
    tmp_path: Path, endpoint: str, text: str, arguments: list[str], scenario: str
) -> None:
    """No receipt without proof."""
    environment = {"MOLECULE_SCENARIO_NAME": scenario, "AWS_ENDPOINT_URL": endpoint}
    assert run_scenario(tmp_path, text, *arguments, **environment) == []


def test_scenario_without_an_instance_leaves_none(tmp_path: Path, endpoint: str) -> None:
    """What was changed after the instance was made was never run, and without an instance nothing was."""
    terminate(endpoint)
    environment = {"MOLECULE_SCENARIO_NAME": "default", "AWS_ENDPOINT_URL": endpoint}
    assert run_scenario(tmp_path, PASSES, **environment) == []


def test_last_change_is_the_latest(project: Path) -> None:
    """Of what is covered; documentation is not."""
    for file in project.rglob("*"):
        os.utime(file, (1000, 1000))
    os.utime(project / "app/Dockerfile", (2000, 2000))
    os.utime(project / "docs/aws.md", (3000, 3000))
    assert receipts.last_change(project, project / "inventories/aws", CONTEXTS) == 2000
