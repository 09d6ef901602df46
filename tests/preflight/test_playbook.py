"""Bad input is refused before anything is touched, in words that say what, where and what is allowed instead."""

import json
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from tests.preflight.input import ansible, free_port, service
from tests.preflight.test_secrets import KEPT_IN
from tests.project import ACCESSORY, ROOT

STRONG = secrets.token_hex(16)


def preflight(tmp_path: Path, inventory: str = "inventories/local", **variables: Any) -> tuple[int, str]:
    """Run the real playbook, and return its exit status and output."""
    options = [f"--inventory={inventory}", f"--extra-vars={json.dumps(variables)}"]
    done = ansible(tmp_path / "ansible", "ansible-playbook", "playbooks/preflight.yml", *options)
    return done.returncode, done.stdout


def assert_refused(told: tuple[int, str], *sentences: str) -> None:
    status, said = told
    assert status != 0, said
    assert [sentence for sentence in sentences if sentence not in said] == [], said
    assert "Traceback" not in said
    assert "changed=0" in said


def test_playbook_refuses_bad_input(tmp_path: Path) -> None:
    """One message has what every check found, and shows no password."""
    databases = [ACCESSORY | {"kind": "mysql", "password": STRONG}]
    databases.append(ACCESSORY | {"name": "cache", "password": "{{ nowhere }}"})
    variables: dict[str, Any] = {"stack_servces": [], "ec2_count": 0, "ec2_public_ports": ["http"]}
    variables |= {"ec2_ssh_cidrs": ["1.2.3.4.5/32"], "accessory_services": databases}
    variables |= {"stack_services": [service(replicas="three", accessories=["cach"])]}
    told = preflight(tmp_path, **variables)
    assert_refused(
        told,
        "Nothing was touched. To be mended first:",
        "- stack_servces is no variable of this project; did you mean stack_services?",
        "- ec2_count is 0: allowed is a whole number from 1 to 20",
        "- ec2_public_ports is ['http']: allowed is a list, each entry a whole number",
        "- ec2_ssh_cidrs[0] is '1.2.3.4.5/32': allowed is a CIDR block such as 203.0.113.7/32",
        "- stack_services[0] (app): replicas is 'three': allowed is a whole number from 1 to 50",
        "- stack_services[0] (app): accessories has 'cach'",
        "- accessory_services[0] (db): kind is 'mysql': allowed is postgresql or redis",
        "- accessory_services[0] (db): the secret password can be read by whoever reads the inventory",
        f"- accessory_services[1] (cache): the secret password has no value: {KEPT_IN}",
    )
    assert STRONG not in told[1]


def test_playbook_refuses_a_certificate_that_cannot_work(tmp_path: Path) -> None:
    assert_refused(
        preflight(tmp_path, stack_port=free_port(), certificate_mode="acme", certificate_email="jane"),
        "- stack_host_names[1] is '127.0.0.1': with certificate_mode acme allowed are DNS names",
        "- certificate_email is 'jane': allowed is an address such as jane@example.com",
    )


def test_playbook_accepts_the_inventory_as_shipped(tmp_path: Path) -> None:
    status, said = preflight(tmp_path, stack_port=free_port())
    assert status == 0, said
    assert "ok=2" in said


def own(tmp_path: Path, hosts: str) -> str:
    """Make an inventory as docs/machines.md describes it, with other hosts than the example's."""
    folder = tmp_path / "own"
    shutil.copytree(ROOT / "inventories/own/group_vars", folder / "group_vars")
    (folder / "hosts.yml").write_text(f"all: {{children: {{app: {{hosts: {hosts}}}, provisioner: {{}}}}}}\n")
    return str(folder)


def test_machines_of_ones_own_are_asked_themselves(tmp_path: Path) -> None:
    """Preflight once looked at the port and the memory of this machine, whichever machine was meant."""
    hosts = f"{{one: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}}}"
    services = [service(replicas="{{ 25 * 2 }}", memory="100g")]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        variables: dict[str, Any] = {"stack_port": port, "stack_address": "127.0.0.1", "stack_services": services}
        told = preflight(tmp_path, own(tmp_path, hosts), **variables)
    assert_refused(
        told,
        "[one]: FAILED!",
        f"stack_port is {port}: something else listens on 127.0.0.1:{port}",
        "50 x 100g of app are 5120",
    )


def test_nothing_is_looked_at_here_when_the_stack_runs_elsewhere(tmp_path: Path) -> None:
    inventory = own(tmp_path, "{one: {ansible_host: 192.0.2.10, ansible_timeout: 1}}")
    told = preflight(tmp_path, inventory, stack_port=22, stack_services=[service(replicas=50, memory="100g")])
    assert_refused(told, "[one]: UNREACHABLE!")
    assert "To be mended first" not in told[1]


def test_inventory_without_a_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    told = preflight(tmp_path, "one.example.com,")
    assert_refused(told, "- The inventory (-i) is no folder with variables: allowed is inventories/aws, ")
