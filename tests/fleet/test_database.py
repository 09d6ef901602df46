"""Operations on databases are whole or not done at all, and never touch data that nobody named."""

import json
import os
import stat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fleet import database
from fleet.cli import main
from fleet.database import Databases
from fleet.system import CancelledError, FleetError
from tests import fake_docker
from tests.fake_docker import Docker

SETTINGS = {"project": "fleet-data", "names": ["db"], "restarts": [], "start_seconds": 1}
SETTINGS |= {"wrong_password": {"db": "password authentication failed"}}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setattr(database, "POLL_S", 0.01)
    described(tmp_path)
    (tmp_path / "stack-data/compose.yml").touch()
    fake = Docker(tmp_path / "bin", monkeypatch)
    fake.answer("config --hash", says="db hash-of-db\n")
    runs(fake, container("db"))
    return fake


def described(folder: Path, **changes: Any) -> Databases:
    (folder / "stack-data").mkdir(exist_ok=True)
    (folder / "stack-data/settings.json").write_text(json.dumps(SETTINGS | changes))
    return Databases(folder / "stack")


def container(name: str, health: str = "healthy", **changes: Any) -> dict[str, Any]:
    made = fake_docker.container(f"id-of-{name}", name, f"hash-of-{name}")
    made["State"]["Health"] = {"Status": health}
    made["Config"]["Image"] = f"fleet/{name}:new"
    made["Mounts"] = [{"Destination": "/run/secrets", "Source": f"/somewhere/secrets/{name}-new"}]
    return made | changes


def runs(docker: Docker, *containers: dict[str, Any]) -> None:
    docker.answer("ps --all", says="\n".join(one["Id"] for one in containers))
    docker.answer("inspect", says=json.dumps(containers))


def done_inside(docker: Docker) -> list[str]:
    """List the restarts, and the programs of the image that were run."""
    return [call[0] if call[0] == "restart" else call[-1] for call in docker.asked() if call[0] in ("exec", "restart")]


def test_start_brings_up_what_compose_yml_says_and_logs_in(docker: Docker, tmp_path: Path) -> None:
    said: list[str] = []
    described(tmp_path).start(said.append)
    where = ["--project-directory", f"{tmp_path}/stack-data", "--file", f"{tmp_path}/stack-data/compose.yml"]
    assert docker.asked(" up ") == [["compose", *where, "up", "--detach", "--pull", "never"]]
    assert docker.asked("exec") == [["exec", "id-of-db", "login"]]
    assert said == ["starts db"]


@pytest.mark.parametrize(
    ("found", "current"),
    [
        ([container("db")], True),
        ([container("db", "starting"), container("gone")], True),
        ([container("db", State={"Running": False})], False),
        ([], False),
    ],
)
def test_only_what_differs_needs_a_start(
    docker: Docker, tmp_path: Path, found: list[dict[str, Any]], *, current: bool
) -> None:
    """A database that still starts, or that nobody wants any more, is nothing that a start could change."""
    runs(docker, *found)
    assert described(tmp_path).are_current() is current


def test_changed_settings_need_a_start(docker: Docker, tmp_path: Path) -> None:
    """Compose labels a container with the hash of its settings; a machine without compose.yml has no databases yet."""
    docker.answer("config --hash", says="db another-hash\n")
    assert described(tmp_path).are_current() is False
    (tmp_path / "stack-data/compose.yml").unlink()
    assert described(tmp_path).are_current() is False


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_start_that_has_nothing_to_do_is_no_job(
    docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str], check: list[str]
) -> None:
    described(tmp_path)
    command = ["databases", "start", "--json", *check, "--directory", str(tmp_path / "stack")]
    main(command)
    assert json.loads(capsys.readouterr().out)["changed"] is False
    assert [call[-1] for call in docker.asked("exec")] == ([] if check else ["login"])
    if check:
        runs(docker)
        main(command)
        assert json.loads(capsys.readouterr().out)["changed"] is True
    assert not (tmp_path / "stack").exists()


@pytest.mark.usefixtures("docker")
def test_start_says_where_there_is_nothing_to_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stack-data/settings.json").unlink()
    assert main(["databases", "start", "--directory", str(tmp_path / "stack")]) == 1
    assert capsys.readouterr().err == f"no databases are described in {tmp_path}/stack-data\n"


def test_other_password_of_the_volume_is_told_in_full(docker: Docker, tmp_path: Path) -> None:
    docker.answer("login", status=2, complains='FATAL:  password authentication failed for user "app"\n')
    with pytest.raises(FleetError) as told:
        described(tmp_path).log_in()
    said = str(told.value)
    assert said.startswith(
        "accessory_services[0] (db): password is not the one that its volume fleet-data_db was initialised with."
    )
    assert "the old password" in said
    assert "restored into a new volume" in said
    # The person would look for another mistake in the wrong place.
    docker.answer("login", status=2, complains="FATAL:  sorry, too many clients already\n")
    with pytest.raises(FleetError, match=r"^accessory_services\[0\] \(db\): logging in failed: FATAL:  sorry"):
        described(tmp_path).log_in()


def test_database_that_does_not_serve_in_time_is_told_with_its_last_log_lines(docker: Docker, tmp_path: Path) -> None:
    runs(docker, container("db", "starting"))
    docker.answer("logs --tail", says="no space left on device")
    with pytest.raises(FleetError, match=r"db did not serve within 0 s(.|\n)*no space left on device"):
        described(tmp_path, start_seconds=0).log_in()


def test_database_that_ends_again_and_again_is_not_waited_for(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only restarts during the wait count, not one of last year."""
    counts = iter([7, 8, 9, 10])

    def containers(_: Databases) -> list[dict[str, Any]]:
        return [container("db", "starting", RestartCount=next(counts))]

    monkeypatch.setattr(Databases, "_containers", containers)
    docker.answer("logs --tail", says="bad option")
    with pytest.raises(FleetError, match=r"db ended 10 times(.|\n)*bad option"):
        described(tmp_path, start_seconds=60).log_in()


def test_backup_is_whole_checked_and_nobody_elses(docker: Docker, tmp_path: Path) -> None:
    docker.answer("db dump", says="PGDMP and all the rest")
    (tmp_path / "mine").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "mine", 12345, -1)
    described(tmp_path).backup("db", tmp_path / "mine/backup")
    made = tmp_path / "mine/backup"
    assert made.read_text() == "PGDMP and all the rest"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert made.stat().st_uid == made.parent.stat().st_uid
    assert done_inside(docker) == ["dump", "check"]


@pytest.mark.parametrize("program", ["dump", "check"])
def test_backup_that_fails_leaves_nothing(docker: Docker, tmp_path: Path, program: str) -> None:
    docker.answer("db dump", says="PGDMP and then")
    docker.answer(f"db {program}", says="PGDMP and then", status=1, complains="connection lost")
    with pytest.raises(FleetError, match="connection lost"):
        described(tmp_path).backup("db", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.usefixtures("docker")
def test_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("of yesterday")
    with pytest.raises(FileExistsError):
        described(tmp_path).backup("db", tmp_path / "backup")
    assert (tmp_path / "backup").read_text() == "of yesterday"


@pytest.mark.parametrize("names", [["db"], []])
def test_what_does_not_run_is_not_backed_up(docker: Docker, tmp_path: Path, names: list[str]) -> None:
    runs(docker, container("cache"))
    with pytest.raises(FleetError, match=r"db does not run here\. To start it: playbooks/deploy\.yml"):
        described(tmp_path, names=names).backup("db", tmp_path / "backup")


def test_backup_is_checked_before_it_is_restored(docker: Docker, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.write_text("PGDMP")
    described(tmp_path).restore("db", backup)
    assert done_inside(docker) == ["check", "restore"]
    docker.answer("db check", status=1, complains="not a valid archive")
    with pytest.raises(FleetError, match=r"db was not touched(.|\n)*not a valid archive"):
        described(tmp_path).restore("db", backup)
    assert done_inside(docker) == ["check", "restore", "check"]


def test_restore_that_fails_says_that_the_old_data_is_there(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("PGDMP")
    docker.answer("db restore", status=1, complains="relation does not exist")
    with pytest.raises(FleetError, match=r"the restore failed, and db has what it had(.|\n)*relation does not exist"):
        described(tmp_path, restarts=["db"]).restore("db", tmp_path / "backup")
    assert docker.asked("restart") == []


def test_restored_data_is_accepted_once_it_serves(docker: Docker, tmp_path: Path) -> None:
    """Until then the old data is kept beside it, and another start brings that back."""
    (tmp_path / "backup").write_text("REDIS")
    databases = described(tmp_path, restarts=["db"], start_seconds=0)
    databases.restore("db", tmp_path / "backup")
    assert done_inside(docker) == ["check", "restore", "restart", "settle"]
    runs(docker, container("db", "starting"))
    with pytest.raises(FleetError, match=r"db is started again with what it had: db did not serve within 0 s"):
        databases.restore("db", tmp_path / "backup")
    assert done_inside(docker)[4:] == ["check", "restore", "restart", "restart"]


def test_cancelled_restore_goes_back(docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backup").write_text("REDIS")
    databases = described(tmp_path, restarts=["db"])
    monkeypatch.setattr(databases, "_wait_until_healthy", Mock(side_effect=CancelledError("It was cancelled.")))
    with pytest.raises(FleetError, match=r"is started again with what it had: It was cancelled\."):
        databases.restore("db", tmp_path / "backup")
    assert done_inside(docker)[-2:] == ["restart", "restart"]


def test_only_what_is_not_wanted_any_more_is_removed(docker: Docker, tmp_path: Path) -> None:
    runs(docker, container("db"), container("cache"))
    docker.answer("images --format", says="fleet/db:old\nfleet/db:new\nfleet/app:old\n")
    docker.answer("volume ls", says="fleet-data_db\nfleet-data_cache\n")
    databases, secrets = described(tmp_path), tmp_path / "stack-data/secrets"
    for name in ("db-old", "db-new", "cache-new"):
        (secrets / name).mkdir(parents=True)
    looked = databases.prune(really=False)
    assert len(list(secrets.iterdir())) == 3
    assert {call[0] for call in docker.asked()} == {"ps", "inspect", "images", "volume"}
    done = databases.prune(really=True)
    assert looked == done
    assert (done["changed"], done["removed"], done["kept"]) == (True, ["cache"], ["fleet-data_cache"])
    assert [path.name for path in secrets.iterdir()] == ["db-new"]
    assert docker.asked("rmi") == [["rmi", "fleet/db:old"]]
    assert docker.asked("stop") == [["stop", "id-of-cache"]]
    assert docker.asked("volume rm") == []
    assert docker.asked("label=com.docker.compose.project=fleet-data")


def test_second_prune_changes_nothing(docker: Docker, tmp_path: Path) -> None:
    docker.answer("images --format", says="fleet/db:new\nfleet/app:old\n")
    assert described(tmp_path).prune(really=True)["changed"] is False
    (tmp_path / "stack-data/secrets/db-new").mkdir(parents=True)
    (tmp_path / "stack-data/settings.json").unlink()
    assert Databases(tmp_path / "stack", "fleet-data").prune(really=True)["changed"] is False
    assert (tmp_path / "stack-data/secrets/db-new").is_dir()


@pytest.mark.parametrize(("deletes", "removed"), [(False, []), (True, [["volume", "rm", "fleet-data_db"]])])
def test_data_goes_only_when_told(docker: Docker, tmp_path: Path, removed: list[list[str]], *, deletes: bool) -> None:
    """It can be removed even when the containers and the files are gone already."""
    docker.answer("volume ls", says="fleet-data_db\n")
    docker.answer("network ls", says="1234\n")
    kept = [] if removed else ["fleet-data_db"]
    databases = Databases(tmp_path / "stack", "fleet-data")
    assert databases.down(deletes_data=deletes, really=False)["kept"] == kept
    looks = {"ps --all", "inspect --type", "network ls", "volume ls"}
    assert {" ".join(call[:2]) for call in docker.asked()} <= looks
    assert databases.directory.is_dir()
    done = databases.down(deletes_data=deletes, really=True)
    assert (done["changed"], done["removed"], done["kept"]) == (True, ["db"], kept)
    assert docker.asked("volume rm") == removed
    assert not databases.directory.exists()
    runs(docker)
    docker.answer("network ls")
    again = Databases(tmp_path / "stack", "fleet-data").down(deletes_data=deletes, really=True)
    assert again["changed"] is bool(removed)


def test_nothing_is_removed_where_nobody_says_of_what_project(docker: Docker, tmp_path: Path) -> None:
    """With an empty name the engine would list the containers of every project."""
    (tmp_path / "stack-data/settings.json").unlink()
    assert Databases(tmp_path / "stack").down(deletes_data=True, really=False)["removed"] == []
    assert docker.asked() == []
