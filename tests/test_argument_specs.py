"""Every role has a specification of its inputs, which agrees with the defaults and the files.

Ansible validates meta/argument_specs.yml before a role does anything. That helps only as long as the specification is
about the variables that exist, so it is compared with defaults/main.yml here.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project import ROLES, ROOT, load_mapping, load_yaml, tasks

TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "dict": (dict,),
    "float": (float, int),
    "int": (int,),
    "list": (list,),
    "path": (str,),
    "raw": (object,),
    "str": (str,),
}

each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


@functools.cache
def entry_points(role: Path) -> dict[str, Any]:
    """Return the entry points of a role's specification."""
    return dict(load_mapping(role / "meta/argument_specs.yml").get("argument_specs", {}))


def options(role: Path) -> dict[str, Any]:
    """Return the options that all entry points of a role have: the role's variables."""
    return dict(entry_points(role)["main"]["options"])


def verb_options(role: Path) -> dict[str, Any]:
    """Return the options that only single entry points of a role have, which are given by ``-e``."""
    return {
        name: option
        for entry in entry_points(role).values()
        for name, option in entry["options"].items()
        if name not in options(role)
    }


def nested(prefix: str, specification: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every option with its dotted name, including those inside other options."""
    for name, option in specification.items():
        yield f"{prefix}{name}", option
        yield from nested(f"{prefix}{name}.", option.get("options", {}))


def mismatches(name: str, value: Any, option: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a value, according to the type that its option declares."""
    if value is None or (isinstance(value, str) and "{{" in value):
        return
    declared = option["type"]
    if not isinstance(value, TYPES[declared]) or (isinstance(value, bool) and declared in {"int", "float"}):
        yield f"{name} is declared {declared}, but is {value!r}"
        return
    if "choices" in option:
        chosen = value if isinstance(value, list) else [value]
        yield from (
            f"{name} is {item!r}, not one of {option['choices']}" for item in chosen if item not in option["choices"]
        )
    if isinstance(value, list):
        element = {"type": option["elements"], "options": option.get("options", {})}
        for index, item in enumerate(value):
            yield from mismatches(f"{name}[{index}]", item, element)
    if isinstance(value, dict) and option.get("options"):
        yield from mapping_mismatches(name, value, option["options"])


def mapping_mismatches(name: str, value: dict[str, Any], specification: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the keys and values of a mapping."""
    yield from (f"{name}.{key} is in no specification" for key in value.keys() - specification.keys())
    for key, option in specification.items():
        if key in value:
            yield from mismatches(f"{name}.{key}", value[key], option)
        elif option.get("required"):
            yield f"{name}.{key} is required and missing"


@each_role
def test_role_has_its_minimal_files(role: Path) -> None:
    """Whoever opens a role finds its inputs, their specification and the index of its tasks in the same places."""
    missing = [
        name
        for name in ("defaults/main.yml", "meta/argument_specs.yml", "tasks/main.yml")
        if not (role / name).is_file()
    ]
    assert not missing


@each_role
def test_specification_says_what_the_role_is_for(role: Path) -> None:
    """`ansible-doc -t role` needs a description for every entry point, and each entry point is a task file."""
    assert "main" in entry_points(role)
    for name, entry in entry_points(role).items():
        assert entry.get("short_description"), f"entry point {name} has no short_description"
        assert (role / f"tasks/{name}.yml").is_file(), f"entry point {name} has no task file"


@each_role
def test_every_option_is_described_and_typed(role: Path) -> None:
    """Without a type nothing is validated; without a description nobody knows what to write."""
    for name, option in nested("", options(role) | verb_options(role)):
        description = option.get("description")
        sentences = description if isinstance(description, list) else [description]
        assert all(isinstance(sentence, str) and sentence.strip() for sentence in sentences), (
            f"{name} has no description"
        )
        assert option.get("type") in TYPES, f"{name} has the type {option.get('type')!r}, not one of {sorted(TYPES)}"
        assert option["type"] != "list" or option.get("elements") in TYPES, f"{name} is a list without elements"
        assert not (option.get("required") and "default" in option), f"{name} is required and has a default"


@each_role
def test_specification_and_defaults_agree(role: Path) -> None:
    """Two lists of the same inputs drift apart unless something compares them."""
    required = {name for name, option in options(role).items() if option.get("required")}
    specified = {name: option.get("default") for name, option in options(role).items() if name not in required}
    defaults = load_mapping(role / "defaults/main.yml")
    assert specified.keys() == defaults.keys()
    assert specified == defaults


def test_what_the_documents_pass_by_e_is_specified() -> None:
    """A variable that no specification has is checked by nothing, and `ansible-doc -t role` does not show it."""
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    passed = {name for path in documents for name in re.findall(r"-e '?([a-z_]+)=", path.read_text(encoding="utf-8"))}
    specified = {name for role in ROLES for name in options(role) | verb_options(role)}
    # scale.yml takes the names of services.
    assert passed - specified == {"app"}


@each_role
def test_required_inputs_are_listed_in_the_defaults(role: Path) -> None:
    """An input without a default is commented out in defaults/main.yml, which then lists every input there is."""
    text = (role / "defaults/main.yml").read_text(encoding="utf-8")
    required = [name for name, option in options(role).items() if option.get("required")]
    assert [name for name in required if not re.search(rf"^# {name}:", text, re.MULTILINE)] == []


@each_role
def test_default_values_have_the_declared_types(role: Path) -> None:
    """Ansible converts what it validates, so "3" passes as a number there; a default has to be one."""
    specification = options(role)
    defaults = load_mapping(role / "defaults/main.yml")
    assert [
        problem for name, value in defaults.items() for problem in mismatches(name, value, specification[name])
    ] == []


@each_role
def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    """Variables of all roles live in one namespace: the prefix is what keeps them apart and says whose they are."""
    public = load_mapping(role / "defaults/main.yml").keys() | options(role).keys()
    assert [name for name in public if not name.startswith(f"{role.name}_")] == []
    assert [name for name in load_mapping(role / "vars/main.yml") if not name.startswith(f"__{role.name}_")] == []


@each_role
def test_main_task_file_is_an_index(role: Path) -> None:
    """tasks/main.yml is read as a table of contents: named, tagged imports of files that exist, and nothing else."""
    index = load_yaml(role / "tasks/main.yml")
    assert index
    assert [entry for entry in index if "block" in entry] == [], "a block hides what is imported"
    for entry in tasks(index):
        modules = entry.keys() & {"ansible.builtin.import_tasks", "ansible.builtin.include_tasks"}
        assert entry.get("name"), f"unnamed: {entry}"
        assert len(modules) == 1, f"{entry['name']} imports nothing"
        tags = entry.get("tags", [])
        names = [tags] if isinstance(tags, str) else tags
        assert role.name in names, f"{entry['name']} lacks the tag {role.name}"
        assert [
            tag for tag in names if tag not in {"always", "never"} and not re.match(rf"{role.name}(_|$)", tag)
        ] == []
        target = entry[modules.pop()]
        name = target["file"] if isinstance(target, dict) else target
        assert "{{" in name or (role / "tasks" / name).is_file(), (
            f"{entry['name']} imports {name}, which does not exist"
        )
