"""Requirements of the controller: for AWS any system with Python 3.11 and SSH, for the rehearsal Debian."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

NOBODY = 65534


def make(folder: Path, *arguments: str, user: int | None = None) -> "subprocess.CompletedProcess[str]":
    """Run make in a folder that has the project's Makefile and nothing else."""
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, user=user
    )


def test_old_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """Pip's own message names only the package of the lock that it could not find."""
    (tmp_path / "old.py").write_text(
        "import sys\nsys.version_info, sys.version = (3, 10, 13, 'final', 0), '3.10.13 (main)'\nexec(sys.argv[2])\n"
    )
    ran = make(tmp_path, "aws", f"PYTHON={sys.executable} old.py")
    assert ran.returncode != 0
    assert ran.stderr.startswith(f"Python 3.11 or newer is needed, and {sys.executable} is 3.10.13: make PYTHON=")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("target", ["rehearse", "test", "molecule", "live"])
def test_who_is_not_root_is_told_what_works_for_everybody(tmp_path: Path, target: str) -> None:
    """The message comes before an environment is made and before tests run for minutes."""
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    ran = make(tmp_path, target, user=NOBODY if os.geteuid() == 0 else None)
    assert ran.returncode != 0
    assert "need Debian 12 or 13, and root: they install Docker and boot instances" in ran.stdout
    assert "make aws, docs/aws.md" in ran.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_uses_the_configuration_also_where_everybody_may_write(tmp_path: Path) -> None:
    """Every folder under /mnt/c in WSL is writable for all, and Ansible ignores the ansible.cfg of such a folder."""
    folder = tmp_path / "my project"
    folder.mkdir()
    (folder / "ansible.cfg").write_text("[defaults]\nforks = 17\n")
    folder.chmod(0o777)
    program = Path(sys.executable).with_name("ansible-config")
    (folder / "show.mk").write_text(f"include Makefile\nshow:\n\t@{program} dump --only-changed\n")
    ran = make(folder, "--file", "show.mk", "show")
    assert "DEFAULT_FORKS" in ran.stdout, ran.stdout + ran.stderr
    assert "= 17" in ran.stdout


def test_run_from_another_folder_says_how(tmp_path: Path) -> None:
    """Ansible reads its settings where it is started, and elsewhere it found neither roles nor plugins."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(ROOT / "site.yml")]
    command += [f"--inventory={ROOT}/inventories/local", "--extra-vars=stack_servces=[]"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    environment |= {"ANSIBLE_HOME": str(tmp_path / "ansible"), "HOME": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert run.stdout.strip() == "", run.stdout
    errors = [line for line in run.stderr.splitlines() if line.startswith("[ERROR]")]
    assert len(errors) == 1, run.stderr
    settings = str(ROOT / "ansible.cfg")
    assert errors[0].endswith(f"run `export ANSIBLE_CONFIG={shlex.quote(settings)}`, then the same command again")
    environment["ANSIBLE_CONFIG"] = settings
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "stack_servces is no variable of this project; did you mean stack_services?" in again.stdout + again.stderr
