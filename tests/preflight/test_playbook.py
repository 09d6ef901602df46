"""Bad input is refused before anything is touched, in words that say what, where and what is allowed instead."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.preflight.input import free_port, service
from tests.project import ROOT


def run_playbook(
    tmp_path: Path, inventory: str = "inventories/local", **variables: Any
) -> "subprocess.CompletedProcess[str]":
    """Run the real playbook, without the shell's variables for Ansible."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    options = [f"--inventory={inventory}", f"--extra-vars={json.dumps(variables)}"]
    command = [program, "playbooks/preflight.yml", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "AWS_"))}
    environment |= {"ANSIBLE_HOME": str(tmp_path / "ansible"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment)


def test_playbook_refuses_bad_input(tmp_path: Path) -> None:
    run = run_playbook(
        tmp_path,
        stack_servces=[],
        ec2_count=0,
        ec2_public_ports=["http"],
        ec2_ssh_cidrs=["1.2.3.4.5/32"],
        stack_services=[service(replicas="three")],
    )
    said = run.stdout + run.stderr
    assert run.returncode != 0, said
    for sentence in (
        "Nothing was touched. To be mended first:",
        "- stack_servces is no variable of this project; did you mean stack_services?",
        "- ec2_count is 0: allowed is a whole number from 1 to 20",
        "- ec2_public_ports is ['http']: allowed is a list, each entry a whole number",
        "- ec2_ssh_cidrs[0] is '1.2.3.4.5/32': allowed is a CIDR block such as 203.0.113.7/32",
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
    assert "nginx 128m, 50 x 100g of app are 5120128 MiB, but this machine has " in run.stdout + run.stderr


def test_playbook_accepts_the_inventory_as_shipped(tmp_path: Path) -> None:
    run = run_playbook(tmp_path, stack_port=free_port())
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ok=2" in run.stdout


def test_playbook_refuses_a_certificate_that_cannot_work(tmp_path: Path) -> None:
    run = run_playbook(tmp_path, stack_port=free_port(), certificate_mode="acme", certificate_email="jane")
    said = run.stdout + run.stderr
    assert run.returncode != 0, said
    for sentence in (
        "- stack_host_names[1] is '127.0.0.1': with certificate_mode acme allowed are DNS names",
        "- certificate_email is 'jane': allowed is an address such as jane@example.com",
    ):
        assert sentence in said
    assert "changed=0" in run.stdout


def own(tmp_path: Path, hosts: str) -> str:
    """Make an inventory as docs/machines.md describes it, with other hosts than the example's."""
    folder = tmp_path / "own"
    shutil.copytree(ROOT / "inventories/own/group_vars", folder / "group_vars")
    (folder / "hosts.yml").write_text(f"all: {{children: {{app: {{hosts: {hosts}}}, provisioner: {{}}}}}}\n")
    return str(folder)


def test_machines_of_ones_own_are_asked_themselves(tmp_path: Path) -> None:
    """Preflight once looked at the port and the memory of this machine, whichever machine was meant."""
    hosts = f"{{one: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}}}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        run = run_playbook(tmp_path, own(tmp_path, hosts), stack_port=port, stack_address="127.0.0.1")
    assert run.returncode != 0, run.stdout
    said = run.stdout + run.stderr
    assert "[one]: FAILED!" in said
    assert f"stack_port is {port}: something else listens on 127.0.0.1:{port}" in said


def test_nothing_is_looked_at_here_when_the_stack_runs_elsewhere(tmp_path: Path) -> None:
    """A port or a memory of this machine says nothing about the machine that is meant."""
    inventory = own(tmp_path, "{one: {ansible_host: 192.0.2.10, ansible_timeout: 1}}")
    services = [service(replicas=50, memory="100g")]
    run = run_playbook(tmp_path, inventory, stack_port=22, stack_services=services)
    assert run.returncode != 0, run.stdout
    assert "[one]: UNREACHABLE!" in run.stdout + run.stderr
    assert "To be mended first" not in run.stdout + run.stderr


def test_inventory_without_a_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    """The run used to end with "Task failed: 'inventory_dir'"."""
    run = run_playbook(tmp_path, "one.example.com,")
    assert run.returncode != 0, run.stdout
    assert "- The inventory (-i) is no folder with variables: allowed is inventories/aws, " in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
