"""What is done to databases on their machine: never half, and never to data that nobody spoke of."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from roles.accessory.library import accessory_machine
from roles.accessory.library.accessory_machine import Project, StepError, down, dump, restore, settle, wait
from roles.accessory.library.backup_file import keep, problem
from tests.fake_docker import Docker

PROJECT = Project("fleet-data")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Give a docker with a database that serves."""
    monkeypatch.setattr(accessory_machine, "POLL_S", 0.01)
    fake = Docker(tmp_path / "bin", monkeypatch)
    runs(fake, container("db"))
    return fake


def container(name: str, health: str = "healthy", **changes: Any) -> dict[str, Any]:
    """Describe a container as the engine does."""
    return {
        "Id": f"id-of-{name}",
        "RestartCount": 0,
        "State": {"Running": True, "Health": {"Status": health}},
        "Config": {"Labels": {"com.docker.compose.service": name}, "Image": f"fleet/{name}:new"},
        "Mounts": [{"Destination": "/run/secrets", "Source": f"/somewhere/secrets/{name}-new"}],
    } | changes


def runs(docker: Docker, *containers: dict[str, Any]) -> None:
    """Have the engine know these containers."""
    docker.answer("ps --all", says="\n".join(one["Id"] for one in containers))
    docker.answer("inspect", says=json.dumps(containers))


def test_healthy_database_is_logged_in_to(docker: Docker) -> None:
    """As an app would, and that is all."""
    assert wait(PROJECT, ["db"], 1) == {"changed": False}
    assert docker.asked("exec") == [["exec", "id-of-db", "login"]]
    assert docker.asked("label=com.docker.compose.project=fleet-data")


def test_other_password_of_the_volume_is_told_in_full(docker: Docker) -> None:
    """Which variable, which volume, and what can be done."""
    docker.answer("login", status=2, complains='FATAL:  password authentication failed for user "app"\n')
    with pytest.raises(StepError) as told:
        wait(PROJECT, ["db"], 1)
    said = str(told.value)
    assert said.startswith(
        "accessory_services[0] (db): password is not the one that its volume fleet-data_db was initialised with."
    )
    assert "the old password" in said
    assert "restored into a new volume" in said


def test_other_trouble_with_the_login_is_not_taken_for_a_wrong_password(docker: Docker) -> None:
    """It would send the person to the wrong place."""
    docker.answer("login", status=2, complains="FATAL:  sorry, too many clients already\n")
    with pytest.raises(StepError, match=r"^accessory_services\[0\] \(db\): logging in failed: FATAL:  sorry"):
        wait(PROJECT, ["db"], 1)


def test_database_that_does_not_serve_in_time_is_told_with_its_last_words(docker: Docker) -> None:
    """The reason is in its log, and nowhere else."""
    runs(docker, container("db", "starting"))
    docker.answer("logs --tail", says="no space left on device")
    with pytest.raises(StepError, match=r"db did not serve within 0 s(.|\n)*no space left on device"):
        wait(PROJECT, ["db"], 0)


def test_database_that_ends_again_and_again_is_not_waited_for(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what it does now counts: one that was restarted last year is not given up for it."""
    counts = iter([7, 8, 9, 10])

    def containers(_: Project) -> list[dict[str, Any]]:
        return [container("db", "starting", RestartCount=next(counts))]

    monkeypatch.setattr(Project, "containers", containers)
    docker.answer("logs --tail", says="bad option")
    with pytest.raises(StepError, match=r"db ended 10 times(.|\n)*bad option"):
        wait(PROJECT, ["db"], 60)


def test_dump_is_whole_checked_and_nobody_elses(docker: Docker, tmp_path: Path) -> None:
    """All of it is read again before anybody relies on it."""
    docker.answer("db dump", says="PGDMP and all the rest")
    assert dump(PROJECT, "db", tmp_path / "backup") == {"changed": True}
    assert (tmp_path / "backup").read_text() == "PGDMP and all the rest"
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
    assert [call[-1] for call in docker.asked("exec")] == ["dump", "check"]


@pytest.mark.parametrize("program", ["dump", "check"])
def test_dump_that_fails_leaves_nothing(docker: Docker, tmp_path: Path, program: str) -> None:
    """Half of a backup is worse than none: somebody might trust it."""
    docker.answer("db dump", says="PGDMP and then")
    docker.answer(f"db {program}", says="PGDMP and then", status=1, complains="connection lost")
    with pytest.raises(StepError, match="connection lost"):
        dump(PROJECT, "db", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_what_does_not_run_is_not_dumped(docker: Docker, tmp_path: Path) -> None:
    """The sentence says how to start it."""
    runs(docker, container("cache"))
    with pytest.raises(StepError, match=r"db does not run here\. To start it: playbooks/deploy\.yml"):
        dump(PROJECT, "db", tmp_path / "backup")


def test_backup_is_checked_before_it_is_restored(docker: Docker, tmp_path: Path) -> None:
    """One that cannot be read touches nothing."""
    backup = tmp_path / "backup"
    backup.write_text("PGDMP")
    restore(PROJECT, "db", backup, 1, restarts=False)
    assert [call[-1] for call in docker.asked("exec")] == ["check", "restore"]
    docker.answer("db check", status=1, complains="not a valid archive")
    with pytest.raises(StepError, match="db was not touched"):
        restore(PROJECT, "db", backup, 1, restarts=False)
    assert len(docker.asked("exec")) == 3


def test_restore_that_fails_says_that_the_old_data_is_there(docker: Docker, tmp_path: Path) -> None:
    """With the reason, and without a restart."""
    (tmp_path / "backup").write_text("PGDMP")
    docker.answer("db restore", status=1, complains="relation does not exist")
    with pytest.raises(StepError, match=r"the restore failed, and db has what it had(.|\n)*relation does not exist"):
        restore(PROJECT, "db", tmp_path / "backup", 1, restarts=True)
    assert docker.asked("restart") == []


def test_restored_data_is_accepted_once_it_serves(docker: Docker, tmp_path: Path) -> None:
    """Until then the old data is beside it."""
    (tmp_path / "backup").write_text("REDIS")
    restore(PROJECT, "db", tmp_path / "backup", 1, restarts=True)
    done = [call[-1] for call in docker.asked("id-of-db") if call[0] in ("exec", "restart")]
    assert done == ["check", "restore", "id-of-db", "settle"]


def test_backup_that_does_not_serve_in_time_is_given_up(docker: Docker, tmp_path: Path) -> None:
    """With another start, which brings the old data back now, and not when nobody expects it."""
    (tmp_path / "backup").write_text("REDIS")
    runs(docker, container("db", "starting"))
    with pytest.raises(StepError, match=r"db is started again with what it had: db did not serve within 0 s"):
        restore(PROJECT, "db", tmp_path / "backup", 0, restarts=True)
    done = [call[-1] for call in docker.asked("id-of-db") if call[0] in ("exec", "restart")]
    assert done == ["check", "restore", "id-of-db", "id-of-db"]


def test_only_what_is_not_wanted_any_more_is_removed(docker: Docker, tmp_path: Path) -> None:
    """The container of an accessory that is gone, old passwords, old images; its volume stays and is named."""
    runs(docker, container("db"), container("cache"))
    docker.answer("images --format", says="fleet/db:old\nfleet/db:new\nfleet/app:old\n")
    docker.answer("volume ls", says="fleet-data_db\nfleet-data_cache\n")
    for name in ("db-old", "db-new", "cache-new"):
        (tmp_path / "secrets" / name).mkdir(parents=True)
    looked = settle(PROJECT, ["db"], tmp_path, really=False)
    assert len(list((tmp_path / "secrets").iterdir())) == 3
    assert {call[0] for call in docker.asked()} == {"ps", "inspect", "images", "volume"}
    done = settle(PROJECT, ["db"], tmp_path, really=True)
    assert looked == done == {"changed": True, "removed": ["cache"], "kept": ["fleet-data_cache"]}
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["db-new"]
    assert docker.asked("rmi") == [["rmi", "fleet/db:old"]]
    assert docker.asked("stop") == [["stop", "id-of-cache"]]
    assert docker.asked("volume rm") == []


def test_settled_project_is_left_alone(docker: Docker, tmp_path: Path) -> None:
    """The second run changes nothing; nor does one where there never was a database."""
    docker.answer("images --format", says="fleet/db:new\nfleet/app:old\n")
    assert settle(PROJECT, ["db"], tmp_path, really=True)["changed"] is False
    runs(docker)
    assert settle(PROJECT, [], tmp_path / "nowhere", really=True)["changed"] is False


@pytest.mark.parametrize(("data", "removed"), [("keep", []), ("delete", [["volume", "rm", "fleet-data_db"]])])
def test_data_goes_only_when_told(docker: Docker, data: str, removed: list[list[str]]) -> None:
    """Also when the containers are gone already."""
    docker.answer("volume ls", says="fleet-data_db\n")
    docker.answer("network ls", says="1234\n")
    kept = [] if removed else ["fleet-data_db"]
    assert down(PROJECT, data, really=False)["kept"] == kept
    assert {" ".join(call[:2]) for call in docker.asked()} <= {
        "ps --all",
        "inspect id-of-db",
        "network ls",
        "volume ls",
    }
    assert down(PROJECT, data, really=True) == {"changed": True, "removed": ["db"], "kept": kept}
    assert docker.asked("volume rm") == removed
    runs(docker)
    docker.answer("network ls")
    again = down(PROJECT, data, really=True)
    assert again["changed"] is bool(removed)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"PGDMP\x01", "postgresql", ""),
        (b"REDIS0012", "redis", ""),
        (
            b"REDIS0012",
            "postgresql",
            "that is one of redis; allowed is a file that playbooks/backup.yml made of postgr",
        ),
        (b"-- PostgreSQL database dump", "postgresql", "that is no backup; allowed is a file"),
        (b"", "redis", "that is no backup; allowed is a file"),
        (None, "redis", "there is no such file; allowed is a file"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes | None, kind: str, said: str) -> None:
    """Before it is brought anywhere."""
    file = tmp_path / "backup"
    if content is not None:
        file.write_bytes(content)
    assert said in problem(file, kind)
    assert bool(problem(file, kind)) is bool(said)


def test_backup_gets_its_name_when_it_is_there(tmp_path: Path) -> None:
    """And is readable by its owner alone, whatever the umask is."""
    part = tmp_path / "db.part"
    part.write_bytes(b"PGDMP")
    part.chmod(0o644)
    keep(part, tmp_path / "db")
    assert [path.name for path in tmp_path.iterdir()] == ["db"]
    assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o600
