"""Tests that passed leave a receipt, which covers exactly the code that they ran with."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from preflight import receipts
from tests.preflight.input import IMAGE
from tests.project import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    other = ["app/Dockerfile", "docs/aws.md", "inventories/aws/group_vars/all/ec2.yml"]
    for name in ["files/images/nginx/Dockerfile", *CODE[:-1], *other]:
        write(tmp_path / "project", name)
    return tmp_path / "project"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the receipts apart from the person's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/flask-fleet/receipts"


def prove(project: Path, file: Path, passed: str = "make test") -> Path:
    return receipts.write(file, passed, receipts.code_of(project))


def write(project: Path, name: str) -> None:
    """Add a line to a file, which need not exist yet."""
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    with (project / name).open("a") as file:
        file.write("# more\n")


CODE = ["roles/stack/tasks/main.yml", "playbooks/deploy.yml", "site.yml", "plugins/action/preflight.py"]
CODE += ["files/images/nginx/.dockerignore", "requirements.txt", "roles/stack/filter_plugins/new.py"]
REMOVED = "files/images/nginx/Dockerfile"


@pytest.mark.parametrize("what", [*CODE, REMOVED])
def test_changed_code_is_unproven_and_named(project: Path, what: str) -> None:
    prove(project, project / "receipt.json")
    write(project, what)
    if what == REMOVED:
        (project / what).unlink()
    said, go_ahead = receipts.proof(project, unproven=False)
    assert not go_ahead
    assert said.startswith("This code is not what passed make test, 20")
    assert f": changed since is {what}. Allowed is " in said


# The app, values and documentation of whoever, and what programs leave.
NO_CODE = ["app/Dockerfile", "shop/wsgi.py", "inventories/aws/group_vars/all/ec2.yml", "inventories/shop/hosts.yml"]
NO_CODE += ["docs/aws.md", "plugins/action/__pycache__/preflight.pyc", "roles/.DS_Store"]


@pytest.mark.parametrize("what", NO_CODE)
def test_what_is_no_code_changes_nothing(project: Path, what: str) -> None:
    """The release's receipt is for people who change only the app and the values."""
    prove(project, project / "receipt.json")
    write(project, what)
    os.utime(project / "site.yml", (1, 1))
    # Under /mnt/c in WSL every file can be executed.
    (project / "site.yml").chmod(0o777)
    assert receipts.proof(project, unproven=False)[1]


def test_place_of_the_project_does_not_matter(project: Path, tmp_path: Path) -> None:
    prove(project, project / "receipt.json")
    assert receipts.proof(Path(shutil.copytree(project, tmp_path / "else where")), unproven=False)[1]


def test_what_is_said_to_be_no_code_is_there() -> None:
    """A name that stayed in the list would leave out whatever gets it next."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition("/")[0] for name in listed.stdout.splitlines()} >= receipts.NO_CODE - {receipts.RELEASE}


def test_the_receipt_that_is_committed_holds_or_says_what_changed() -> None:
    """Daily changes of code make it stale, which is no failure; it must only never be damaged."""
    if (ROOT / receipts.RELEASE).exists():
        assert receipts.read(ROOT / receipts.RELEASE)
    said, go_ahead = receipts.proof(ROOT, unproven=False)
    assert go_ahead or "changed since is" in said or "no receipt came with it" in said


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
    """A test that was skipped or left out with -k proved nothing."""
    assert receipts.complete(outcomes) == passed


def test_receipt_of_ones_own_test_lets_go_ahead(project: Path, state: Path) -> None:
    prove(project, project / "receipt.json")
    write(project, "site.yml")
    prove(project, state / "default.json", "scenario default, 10 tests")
    said, go_ahead = receipts.proof(project, unproven=False)
    assert go_ahead
    assert said.startswith("Proved: this code passed scenario default, 10 tests, 20")


def test_without_a_receipt_it_stops_and_names_the_ways_on(project: Path) -> None:
    said, go_ahead = receipts.proof(project, unproven=False)
    assert not go_ahead
    assert said.startswith("No passed test has proved this code, and no receipt came with it. Allowed is the code of a")
    assert "make test, or in five minutes: molecule test -s default; or -e ec2_unproven=true" in said


def test_unproven_goes_ahead_and_says_so(project: Path) -> None:
    prove(project, project / "receipt.json")
    assert receipts.proof(project, unproven=True)[0].startswith("Proved:")
    for number in range(7):
        write(project, f"roles/shop/tasks/{number}.yml")
    said, go_ahead = receipts.proof(project, unproven=True)
    assert go_ahead
    assert said.startswith("UNPROVEN (ec2_unproven is true): This code is not what passed make test, ")
    assert said.endswith("roles/shop/tasks/4.yml and 2 more")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"passed": "x"}', '{"passed": "x", "time": "x", "code": {}}'])
def test_damaged_receipt_is_none(project: Path, content: str) -> None:
    (project / "receipt.json").write_text(content)
    assert receipts.read(project / "receipt.json") is None
    assert not receipts.proof(project, unproven=False)[1]


def terminate(endpoint: str) -> None:
    """Leave no instance to the next test, because moto's memory lasts as long as the process."""
    ec2 = boto3.client("ec2", region_name="eu-central-1", endpoint_url=endpoint)
    groups = ec2.describe_instances()["Reservations"]
    ec2.terminate_instances(InstanceIds=[one["InstanceId"] for group in groups for one in group["Instances"]])


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Answer as the rehearsal does after a scenario has made its instance."""
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
        # Hypothesis would take a second of each run.
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
        capture_output=True,
        check=False,
        timeout=600,
    )
    return sorted(receipts.folder().glob("*.json"))


PASSES = "def test_one():\n    pass\n\n\ndef test_two():\n    pass\n"


def test_green_scenario_leaves_a_receipt(tmp_path: Path, endpoint: str) -> None:
    (left,) = run_scenario(tmp_path, PASSES, MOLECULE_SCENARIO_NAME="default", AWS_ENDPOINT_URL=endpoint)
    assert json.loads(left.read_text())["passed"] == "scenario default, 2 tests"
    assert receipts.proof(ROOT, unproven=False)[1]


@pytest.mark.parametrize(
    ("text", "arguments", "scenario"),
    [
        (f"{PASSES}\n\ndef test_three():\n    assert False\n", [], "default"),
        (PASSES, ["-k", "one"], "default"),
        ("", [], "default"),
        (PASSES, [], ""),
        (PASSES, [], "rollout"),
    ],
    ids=["one failed", "one left out", "no test", "no scenario", "scenario of a part"],
)
def test_anything_less_leaves_none(
    tmp_path: Path, endpoint: str, text: str, arguments: list[str], scenario: str
) -> None:
    environment = {"MOLECULE_SCENARIO_NAME": scenario, "AWS_ENDPOINT_URL": endpoint}
    assert run_scenario(tmp_path, text, *arguments, **environment) == []


def test_scenario_without_an_instance_leaves_none(tmp_path: Path, endpoint: str) -> None:
    """Code that changed after the instance was made was never run; without an instance nothing was."""
    terminate(endpoint)
    environment = {"MOLECULE_SCENARIO_NAME": "default", "AWS_ENDPOINT_URL": endpoint}
    assert run_scenario(tmp_path, PASSES, **environment) == []


def test_last_change_is_the_latest(project: Path) -> None:
    for file in project.rglob("*"):
        os.utime(file, (1000, 1000))
    os.utime(project / "files/images/nginx/Dockerfile", (2000, 2000))
    os.utime(project / "app/Dockerfile", (3000, 3000))
    assert receipts.last_change(project) == 2000


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commit the small project, with the real program in it."""
    shutil.copytree(ROOT / "preflight", project / "preflight", dirs_exist_ok=True, ignore=lambda *_: {"__pycache__"})
    for name in ("NAME", "EMAIL"):
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", "jane@example.com")
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", "jane@example.com")
    (project / ".gitignore").write_text("__pycache__\n*.key\n")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "All"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    return project


def books(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "preflight.receipts", *arguments]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


def test_release_is_what_passed_and_is_committed(repository: Path) -> None:
    refused = books(repository, "release")
    assert (refused.returncode, refused.stderr) == (1, "make test has not passed with this code: run it first\n")
    assert books(repository, "passed", "9999999999").stdout.startswith("receipt: ")
    write(repository, "files/own.key")
    assert "has not passed with this code" in books(repository, "release").stderr
    books(repository, "passed", "9999999999")
    assert books(repository, "release").stderr == "Not all of this is committed: a receipt is for what a commit has\n"
    (repository / "files/own.key").unlink()
    write(repository, "docs/aws.md")
    books(repository, "passed", "9999999999")
    assert books(repository, "release").stderr == "Not all of this is committed: a receipt is for what a commit has\n"
    subprocess.run(["git", "checkout", "--quiet", "docs"], cwd=repository, check=True)
    for _ in range(2):
        done = books(repository, "release")
        assert done.returncode == 0, done.stderr
    shutil.rmtree(receipts.folder())
    assert receipts.proof(repository, unproven=False)[1]


def test_code_that_changed_under_the_tests_is_not_proved(repository: Path) -> None:
    assert books(repository, "passed", "1").stdout == "no receipt: code was changed while the tests ran\n"
    assert not receipts.folder().exists()


def test_new_package_is_code_from_its_first_commit(repository: Path) -> None:
    """Nobody has to add it to a list; what git does not track is somebody's notes."""
    write(repository, "monitoring/rules.py")
    assert "monitoring/rules.py" not in receipts.code_of(repository)
    subprocess.run(["git", "add", "."], cwd=repository, check=True)
    assert "monitoring/rules.py" in receipts.code_of(repository)
    prove(repository, repository / "receipt.json")
    write(repository, "monitoring/rules.py")
    assert "changed since is monitoring/rules.py" in receipts.proof(repository, unproven=False)[0]


def test_a_download_has_the_same_code(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no history, and the person may not even have git."""
    code = receipts.code_of(repository)
    shutil.rmtree(repository / ".git")
    write(repository, "vault.key")
    write(repository, ".venv/bin/python")
    assert receipts.code_of(repository) == code
    monkeypatch.setenv("PATH", "")
    assert receipts.code_of(repository) == code
    assert code.keys() >= {"site.yml", "preflight/receipts.py", "files/images/nginx/.dockerignore"}
