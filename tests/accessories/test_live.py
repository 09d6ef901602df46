"""PostgreSQL and Redis in real containers: data that outlives everything but the order to remove it."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.rollout import prepare
from fleet.stack import Stack
from fleet.system import FleetError, run
from tests.accessories.conftest import STACK, Lab, docker, logs

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def _known_data(lab: Lab) -> None:
    """Begin each test with the same data."""
    lab.sql("DROP TABLE IF EXISTS guest CASCADE; CREATE TABLE guest (name text); INSERT INTO guest VALUES ('jane')")
    lab.redis("SET", "visits", "41")


def guests(lab: Lab) -> str:
    """Read the names in the table."""
    return lab.sql("SELECT string_agg(name, ',' ORDER BY name) FROM guest")


def test_second_run_changes_nothing(lab: Lab) -> None:
    """The containers stay the same ones, too."""
    before = [lab.container(name)["Id"] for name in ("db", "cache")]
    again = lab.start()
    assert again.ok, again.said
    assert again.changed == {"localhost": 0}, again.said
    assert [lab.container(name)["Id"] for name in ("db", "cache")] == before


def test_only_what_changed_is_replaced_and_has_its_data(lab: Lab) -> None:
    """Other limits make another container on the same volume."""
    before = {name: lab.container(name)["Id"] for name in ("db", "cache")}
    lab.memory["db"] = "160m"
    changed = lab.start()
    assert changed.ok, changed.said
    assert lab.container("db")["Id"] != before["db"]
    assert lab.container("cache")["Id"] == before["cache"]
    assert lab.container("db")["HostConfig"]["Memory"] == 160 * 2**20
    assert lab.sql("SHOW shared_buffers") == "40MB"
    assert guests(lab) == "jane"


def test_both_are_confined(lab: Lab) -> None:
    """They run without root and capabilities, publish no port, and can write only to the volume and a small /tmp."""
    for name in ("db", "cache"):
        found = lab.container(name)
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["HostConfig"]["PortBindings"] in ({}, None)
        assert found["Config"]["User"].split(":")[0] in ("10003", "10004")
        assert [mount["Type"] for mount in found["Mounts"] if mount["RW"]] == ["volume"]
        inside = ["sh", "-c", "grep -h ^CapEff /proc/[0-9]*/status; ! touch /usr/x 2>/dev/null && echo closed"]
        said = docker("exec", found["Id"], *inside)
        assert set(said.splitlines()) == {"CapEff:\t0000000000000000", "closed"}


def test_password_is_nowhere_but_in_its_file(lab: Lab) -> None:
    """It is not in what the engine knows, nor in logs, process lists and environments inside."""
    for name, password in lab.passwords.items():
        container = f"{STACK}-data-{name}-1"
        inside = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"
        for said in (
            docker("inspect", container),
            logs(container),
            docker("exec", container, "sh", "-c", inside),
        ):
            assert said
            assert password not in said
        text = (lab.folder / "stack-data/compose.yml").read_text()
        assert password not in text
        (file,) = (lab.folder / "stack-data/secrets").glob(f"{name}-*/password")
        assert file.read_text() == password
        assert stat.S_IMODE(file.stat().st_mode) == 0o400


def test_app_logs_in_with_the_password_and_not_without(lab: Lab) -> None:
    """Its role may do everything in its own database, and nothing else."""
    container = f"{STACK}-data-db-1"
    client = "psql --host=db --no-password --tuples-only --no-align --command"
    assert docker("exec", container, "sh", "-c", f"{client} 'SHOW is_superuser' --username=app").strip() == "off"
    for wrong in ("PGPASSFILE=/dev/null", "PGUSER=postgres", "PGPASSFILE=/dev/null PGPASSWORD=wrong"):
        user = "" if "PGUSER" in wrong else "--username=app"
        with pytest.raises(AssertionError, match=r"no password supplied|authentication failed|no pg_hba.conf entry"):
            docker("exec", container, "sh", "-c", f"{wrong} {client} 'SELECT 1' {user}")
    assert lab.sql("SHOW data_checksums") == "on"
    cache = f"{STACK}-data-cache-1"
    assert "NOAUTH" in docker("exec", cache, "redis-cli", "-h", "cache", "GET", "visits")
    as_app = 'printf "AUTH %s\\nGET visits\\nSHUTDOWN\\n" "$(cat /run/secrets/password)" | redis-cli -h cache'
    answers = docker("exec", cache, "sh", "-c", as_app).splitlines()
    assert answers[:2] == ["OK", "41"]
    assert "NOPERM" in answers[2]


def test_data_outlives_a_kill_and_down(lab: Lab) -> None:
    """Committed data is there after both, and the output of down says that it keeps the data."""
    lab.sql("INSERT INTO guest VALUES ('joe')")
    lab.redis("INCR", "visits")
    # Redis brings writes to the disk once a second.
    time.sleep(2)
    for name in ("db", "cache"):
        docker("kill", f"{STACK}-data-{name}-1")
    down = lab.play("playbooks/down.yml")
    assert down.ok, down.said
    assert f"The data stays in the volumes {STACK}-data_cache, {STACK}-data_db" in down.text
    assert lab.volumes() == [f"{STACK}-data_cache", f"{STACK}-data_db"]
    again = lab.start()
    assert again.ok, again.said
    assert guests(lab) == "jane,joe"
    assert lab.redis("GET", "visits") == "42"


def test_volume_of_another_password_is_told_in_words(lab: Lab) -> None:
    """The old password still opens it."""
    old = lab.passwords["db"]
    lab.passwords["db"] = "another-password-by-far"
    refused = lab.start()
    lab.passwords["db"] = old
    assert not refused.ok
    assert "accessory_services[0] (db): password is not the one that its volume" in refused.text
    assert "another-password-by-far" not in refused.said
    again = lab.start()
    assert again.ok, again.said
    assert guests(lab) == "jane"


def test_backup_brings_back_what_was_lost(lab: Lab) -> None:
    """This is the whole way: dump while it serves, lose everything, start empty, restore."""
    saved = lab.play("playbooks/backup.yml")
    assert saved.ok, saved.said
    files = {"db": lab.backup("dump"), "cache": lab.backup("rdb")}
    for file in files.values():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f"-e backup={file}" in saved.said
    # Without the inventory there is no machine.
    assert f"playbooks/restore.yml -i {lab.folder} -e accessory=db " in saved.said
    assert len(list(lab.backups.rglob("*.*"))) == 2, "nothing half is left"
    assert lab.play("playbooks/down.yml", "--extra-vars=data=delete").ok
    assert lab.volumes() == []
    assert lab.start().ok
    assert lab.redis("DBSIZE") == "0"
    for name, file in files.items():
        restored = lab.play("playbooks/restore.yml", f"--extra-vars=accessory={name} backup={file}")
        assert restored.ok, restored.said
    assert guests(lab) == "jane"
    assert lab.redis("GET", "visits") == "41"
    docker("restart", f"{STACK}-data-cache-1")
    again = lab.start()
    assert again.ok, again.said
    assert lab.redis("GET", "visits") == "41"


def test_restore_that_fails_leaves_the_data(lab: Lab) -> None:
    """A newer view depends on a table that the backup would replace: nothing is restored, and the reason is told."""
    assert lab.play("playbooks/backup.yml", "--extra-vars=accessory=db").ok
    lab.sql("INSERT INTO guest VALUES ('joe'); CREATE VIEW newer AS SELECT name FROM guest")
    failed = lab.play("playbooks/restore.yml", f"--extra-vars=accessory=db backup={lab.backup('dump')}")
    assert not failed.ok
    assert "the restore failed, and db has what it had" in failed.text
    assert "other objects depend on it" in failed.text
    assert guests(lab) == "jane,joe"


def test_redis_that_does_not_load_a_backup_goes_back(lab: Lab) -> None:
    """The test puts the file where `restore` puts it, because the check before would refuse it."""
    place = "mkdir restored && echo REDIS0012garbage > restored/appendonly.aof.1.base.rdb && "
    place += "echo 'file appendonly.aof.1.base.rdb seq 1 type b' > restored/appendonly.aof.manifest"
    docker("exec", f"{STACK}-data-cache-1", "sh", "-c", place)
    docker("restart", f"{STACK}-data-cache-1")
    again = lab.start()
    assert again.ok, again.said
    assert lab.redis("GET", "visits") == "41"


def test_backup_of_a_restore_that_was_killed_is_forgotten(lab: Lab) -> None:
    """A restart weeks later must not restore it."""
    docker("exec", f"{STACK}-data-cache-1", "sh", "-c", "mkdir restored && touch -d '-1 hour' restored")
    docker("restart", f"{STACK}-data-cache-1")
    again = lab.start()
    assert again.ok, again.said
    assert lab.redis("GET", "visits") == "41"
    assert docker("exec", f"{STACK}-data-cache-1", "ls").split() == ["appendonlydir"]


def test_half_a_backup_is_refused(lab: Lab) -> None:
    """Its beginning is right; only whoever reads all of it finds that the end is missing."""
    lab.sql("INSERT INTO guest SELECT md5(n::text) FROM generate_series(1, 5000) n")
    for number in range(100):
        lab.redis("SET", f"key{number}", "value" * 20)
    assert lab.play("playbooks/backup.yml").ok
    for name, suffix in (("db", "dump"), ("cache", "rdb")):
        whole = lab.backup(suffix)
        half = lab.folder / f"half.{suffix}"
        half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        refused = lab.play("playbooks/restore.yml", f"--extra-vars=accessory={name} backup={half}")
        assert not refused.ok
        assert f"{name} was not touched: this is no backup that it can read" in refused.text
    assert lab.redis("GET", "visits") == "41"


ASK = 'printf "AUTH %s\\nGET visits\\n" "$(cat /run/secrets/password)" | redis-cli -h cache'
"""Asks as an app would, with programs that any image of Redis has."""


@pytest.fixture
def release(lab: Lab, tmp_path: Path) -> Stack:
    """Render two services, of which one may reach the cache, in a release that is not live yet."""
    found = lab.container("cache")
    (secrets,) = [mount["Source"] for mount in found["Mounts"] if mount["Destination"] == "/run/secrets"]
    common: dict[str, Any] = {
        "image": found["Config"]["Image"],
        "entrypoint": [],
        "user": "10004:10004",
        "volumes": [f"{secrets}:/run/secrets:ro"],
    }
    project = {
        "name": f"{STACK}-stack",
        "services": {
            "app": common | {"networks": ["inside", "cache.data"]},
            "other": common | {"networks": ["inside"]},
        },
        "networks": {
            "inside": {"internal": True},
            "cache.data": {"external": True, "name": f"{STACK}-data_cache"},
        },
    }
    (tmp_path / "releases/r1").mkdir(parents=True)
    (tmp_path / "releases/r1/compose.yml").write_text(json.dumps(project))
    return Stack(tmp_path)


def of_stack(*words: str) -> str:
    """List what the engine has of that release."""
    return docker(*words, "--quiet", "--filter", f"label=com.docker.compose.project={STACK}-stack").strip()


def pre_deploy(stack: Stack, service: str, command: list[str], seconds: int) -> str:
    """Run the command of a service before that release, and return the output."""
    said: list[str] = []
    settings = {"pre_deploy": {service: command}, "pre_deploy_seconds": seconds}
    (stack.directory / "settings.json").write_text(json.dumps(settings))
    prepare(stack, "r1", said.append)
    return "\n".join(said)


def test_command_before_a_deploy_reaches_the_database(release: Stack) -> None:
    """It works by name and password from the service that names the database and from no other, and leaves nothing."""
    try:
        assert pre_deploy(release, "app", ["sh", "-c", ASK], 60).endswith("OK\n41")
        # Nobody answers for the name either, which would take half a minute to find out.
        alone = "RES_OPTIONS='timeout:1 attempts:1' redis-cli -h cache PING"
        with pytest.raises(FleetError, match=r"ended with status 1(.|\n)*Could not connect to Redis at cache"):
            pre_deploy(release, "other", ["sh", "-c", alone], 60)
        with pytest.raises(FleetError, match=r"did not end within 5 s(.|\n)*waiting"):
            pre_deploy(release, "app", ["sh", "-c", "echo waiting; sleep 60"], 5)
        assert of_stack("ps", "--all") == ""
    finally:
        run(["docker", "compose", "--file", str(release.directory / "releases/r1/compose.yml"), "down"])
    assert of_stack("network", "ls") == ""
