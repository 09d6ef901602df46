"""The rules that hold for every play, task and template of the project.

ansible-lint checks one file at a time against general rules. These are the project's own.
"""

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from ansible.playbook.handler import Handler

from tests.project import ROLES, ROOT, files, load_mapping, load_yaml, mappings, relative, tasks

PLAYBOOKS = files("playbooks/*.yml")
SCENARIOS = [
    path for path in files("molecule/**/*.yml") if path.name != "molecule.yml" and "inventory" not in relative(path)
]
TASK_FILES = files("roles/*/tasks/**/*.yml")
TEMPLATES = files("roles/*/templates/**/*")
VARIABLE_FILES = files("inventories/*/group_vars/**/*.yml", "inventories/*/host_vars/**/*.yml")
YAML_FILES = files("site.yml", *(f"{folder}/**/*.yml" for folder in ("inventories", "molecule", "playbooks", "roles")))
ANSIBLE_FILES = sorted({*YAML_FILES, *TEMPLATES})

OWN_MODULES = ("roles/*/library/*.py", "roles/*/action_plugins/*.py", "plugins/action/*.py", "plugins/modules/*.py")

# What Ansible itself defines for plays, tasks and connections. Every other ansible_* variable is an injected fact.
MAGIC = re.compile(
    r"""ansible_(
        facts | managed | local | check_mode | diff_mode | verbosity | version | config_file | limit | forks
        | playbook_python | inventory_sources | (run|skip)_tags | search_path | failed_(task|result) | async_dir
        | play_(name|hosts|hosts_all|batch|role_names) | (dependent_|parent_)?role_(name|names|paths)
        | collections?(_name)? | remote_tmp | loop(_var)? | index_var
        | host | port | user | password | connection | python_interpreter | timeout | pipelining | private_key_file
        | (ssh|become|docker|aws_ssm|connection)_\w+ | become
    )$""",
    re.VERBOSE,
)

each_playbook = pytest.mark.parametrize("playbook", PLAYBOOKS, ids=relative)
each_template = pytest.mark.parametrize("template", TEMPLATES, ids=relative)
each_file = pytest.mark.parametrize("path", ANSIBLE_FILES, ids=relative)
each_task_file = pytest.mark.parametrize("path", [*TASK_FILES, *PLAYBOOKS, *SCENARIOS], ids=relative)


def plays(path: Path) -> list[dict[str, Any]]:
    """Return the plays of a playbook, without imports of other playbooks."""
    return [play for play in load_yaml(path) if "hosts" in play]


def tasks_of(path: Path) -> list[dict[str, Any]]:
    """Return every task of a task file or a playbook."""
    if path in TASK_FILES:
        return list(tasks(load_yaml(path)))
    sections = ("pre_tasks", "tasks", "post_tasks", "handlers")
    return [task for play in plays(path) for section in sections for task in tasks(play.get(section))]


def modules(task: dict[str, Any]) -> list[str]:
    """Return what a task calls: every key that is not a keyword of tasks."""
    return [key for key in task if key not in Handler.fattributes and not key.startswith("with_")]


def own_modules() -> set[str]:
    """Return the project's modules and action plugins, which belong to no collection."""
    return {path.stem for path in files(*OWN_MODULES)}


def collections() -> set[str]:
    """Return the collections that the project says it needs."""
    return {"ansible.builtin", *(entry["name"] for entry in load_mapping(ROOT / "requirements.yml")["collections"])}


def test_nothing_is_left_to_a_handler() -> None:
    """A run that is killed forgets its notifications, and the next one finds every file as it should be."""
    assert files("roles/*/handlers/**/*") == []
    assert [
        f"{relative(path)}: {task['name']}"
        for path in YAML_FILES
        for task in mappings(load_yaml(path))
        if "notify" in task
    ] == []


def test_site_is_a_list_of_imports() -> None:
    """Whoever reads site.yml sees the whole path, and no work hides in it."""
    entries = load_yaml(ROOT / "site.yml")
    assert len(entries) > 1
    for entry in entries:
        assert entry.get("name")
        assert entry.keys() <= {"name", "ansible.builtin.import_playbook", "tags", "when"}, entry["name"]
        assert (ROOT / entry["ansible.builtin.import_playbook"]).is_file()


@each_playbook
def test_play_is_named_and_goes_by_the_settings(playbook: Path) -> None:
    """ansible.cfg says for all plays that facts are gathered by decision only and that one failure stops all hosts."""
    settings = ConfigParser()
    settings.read(ROOT / "ansible.cfg")
    assert settings["defaults"]["gathering"] == "explicit"
    assert settings["defaults"]["any_errors_fatal"] == "True"
    for entry in load_yaml(playbook):
        assert entry.get("name")
        assert not entry.keys() & {"any_errors_fatal", "gather_facts"}, entry["name"]


@each_playbook
def test_playbook_begins_with_the_settings(playbook: Path) -> None:
    """They come before a role or plugin that Ansible finds only by its settings."""
    first = load_yaml(playbook)[0]
    if "hosts" not in first:
        assert first["ansible.builtin.import_playbook"] in {"machines.yml", "preflight.yml"}
    else:
        assert first["tasks"][0]["ansible.builtin.import_tasks"] == "settings/read.yml"
        assert not first.keys() & {"pre_tasks", "roles"}


@pytest.mark.parametrize("path", YAML_FILES, ids=relative)
def test_no_failure_is_ignored_and_no_secret_is_shown(path: Path) -> None:
    """`ignore_errors` hides what nobody expected (failed_when names what is expected); no_log is never switched off."""
    for mapping in mappings(load_yaml(path)):
        assert "ignore_errors" not in mapping, mapping.get("name")
        assert mapping.get("no_log") is not False, mapping.get("name")


@each_task_file
def test_nothing_is_fetched_as_root(path: Path) -> None:
    """As root, fetch reads the whole file into memory: on a t2.micro the kernel ends it."""
    for task in tasks_of(path):
        if "ansible.builtin.fetch" in task:
            assert task["vars"]["ansible_become"] is False, task["name"]


@each_task_file
def test_modules_have_full_names(path: Path) -> None:
    """A full name cannot come to mean another module, and its collection is one that requirements.yml brings."""
    known, own = collections(), own_modules()
    for task in tasks_of(path):
        called = modules(task)
        assert len(called) == 1, f"{task.get('name')} calls {called}"
        collection = called[0].rpartition(".")[0]
        assert collection in known or called[0].removeprefix("ansible.legacy.") in own, (
            f"{task.get('name')} calls {called[0]}"
        )


def test_tasks_that_scenarios_interrupt_exist() -> None:
    """A scenario names the task at which a run is killed, and nothing would be killed at one that was renamed."""
    texts = [path.read_text(encoding="utf-8") for path in files("molecule/*/tests/**/*.py")]
    named = {name for text in texts for name in re.findall(r'"(\w+ : \w+ \| [^"]+)"', text)}
    known = {f"{path.parts[-3]} : {task['name']}" for path in TASK_FILES for task in tasks_of(path)}
    assert named
    assert named <= known


@each_task_file
def test_loop_variables_are_prefixed(path: Path) -> None:
    """`item` of one loop overwrites `item` of another as soon as a looped file has a loop of its own."""
    role = path.relative_to(ROOT).parts[1] if path in TASK_FILES else ""
    prefix = f"__{role}_" if role else "__"
    for task in tasks_of(path):
        assert [key for key in task if key.startswith("with_")] == [], f"{task.get('name')}: use loop"
        if "loop" in task:
            control = task.get("loop_control", {})
            names = [control.get("loop_var", "item"), *(control[key] for key in ("index_var",) if key in control)]
            assert [name for name in names if not name.startswith(prefix)] == [], f"{task.get('name')}: prefix {prefix}"


@each_file
def test_facts_are_not_injected(path: Path) -> None:
    """Facts are read as ansible_facts['name']: the short variables go away in ansible-core 2.24 and are off here."""
    text = re.sub(r"^\s*#.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    used = set(re.findall(r"\bansible_[a-z0-9_]+", text))
    assert sorted(name for name in used if not MAGIC.match(name)) == []


@each_template
def test_template_says_that_it_is_managed(template: Path) -> None:
    """Whoever edits the file on the machine learns there that the next run overwrites it."""
    assert template.suffix == ".j2"
    lines = template.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("#!"))
    assert re.fullmatch(r"\{\{ ansible_managed \| comment(\(.+\))? \}\}", first)


@pytest.mark.parametrize(
    "path",
    sorted({*ANSIBLE_FILES, *files("app/**/Dockerfile", "files/**/Dockerfile", "rehearsal/**/*.py")}),
    ids=relative,
)
def test_nothing_follows_the_latest(path: Path) -> None:
    """A version that nobody chose changes from day to day."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"[\w}]:latest\b|\bstate: *[\"']?latest\b", text) == []


def inputs(role: Path) -> set[str]:
    """Return the variables that a role takes."""
    specification = load_mapping(role / "meta/argument_specs.yml").get("argument_specs", {})
    return {name for entry in specification.values() for name in entry.get("options", {})}


@pytest.mark.parametrize("path", VARIABLE_FILES, ids=relative)
def test_inventory_sets_what_a_role_takes(path: Path) -> None:
    """A misspelt variable would silently change nothing; a file named after a role holds only what is the role's."""
    names = load_mapping(path).keys()
    roles = {role.name: inputs(role) for role in ROLES}
    known = roles.get(path.stem, {name for taken in roles.values() for name in taken})
    prefix = {"ansible": "ansible_", "vault": "vault_", "vault.example": "vault_"}.get(path.stem)
    assert [name for name in names if not (name.startswith(prefix) if prefix else name in known)] == []


def test_every_scenario_is_run() -> None:
    """The Makefile names the scenarios for their order, and would never run one that it does not name."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.search(r"^SCENARIOS := (.+)$", makefile, re.MULTILINE)
    assert named
    alone = re.findall(r"\$\(MOLECULE\) --scenario-name (\w+)", makefile)
    assert sorted(named[1].split() + alone) == sorted(path.parent.name for path in files("molecule/*/molecule.yml"))


@each_playbook
def test_commands_for_docker_do_not_read_the_operators_settings(playbook: Path) -> None:
    """COMPOSE_PROJECT_NAME or DOCKER_HOST, set for another project, would lead to other containers."""
    expected = "{{ docker_environment | default({}) }}"
    assert [
        play["name"] for play in plays(playbook) if play["hosts"] == "app" and play.get("environment") != expected
    ] == []
