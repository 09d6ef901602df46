"""Names, types and ranges of the variables are checked."""

import pytest

from preflight import variables
from tests.project import ROOT

OPTIONS = variables.known_variables(ROOT / "roles")


@pytest.mark.parametrize("name", sorted(variables.WHOLE_NUMBERS))
def test_numbers_have_a_range(name: str) -> None:
    """Without one, -1 instances are found by AWS half-way through; Python takes True for 1, and -e gives text."""
    option = next(of_role[name] for of_role in OPTIONS.values() if name in of_role)
    assert option["type"] == "int"
    smallest, largest = variables.WHOLE_NUMBERS[name]
    for value in (option["default"], smallest, largest, str(smallest), str(largest)):
        assert list(variables.out_of_range({name: value})) == []
    for value in (smallest - 1, largest + 1, str(largest + 1), "three", "", None, True, 2.5, [2]):
        said = f"{name} is {value!r}: allowed is a whole number from {smallest} to {largest}"
        assert list(variables.out_of_range({name: value})) == [said]


@pytest.mark.parametrize("value", ["", "00:00", "04:30", "23:59"])
def test_time_of_day_is_allowed(value: str) -> None:
    assert list(variables.bad_times({"host_reboot_time": value})) == []


@pytest.mark.parametrize("value", [240, "4:00", "24:00", "04:60", "now", None, "04:00\n"], ids=repr)
def test_what_is_no_time_of_day_is_refused(value: object) -> None:
    """YAML reads 04:00 without quotes as 240 and 20:00 as 1200; apt would reboot at once, or never."""
    assert list(variables.bad_times({"host_reboot_time": value})) == [
        f'host_reboot_time is {value!r}: allowed is a time of day in quotes, such as "04:00", or ""'
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stack_name", "my_shop-2"),
        ("stack_name", "7"),
        ("stack_directory", "/opt/my fleet"),
        ("ec2_project", "Shop.eu"),
    ],
)
def test_name_that_arrives_unchanged_is_allowed(name: str, value: str) -> None:
    assert list(variables.bad_names({name: value})) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("stack_name", one) for one in ("Shop", "My Shop", "a.eu", "-shop", "", "shop\n", "a" * 64, "käse", None)),
        *(("stack_directory", value) for value in ("fleet", "./fleet", "~/fleet", "", "/", "/opt/", "/opt/a:b", None)),
        *(("ec2_project", value) for value in ("my shop", "a/b", "", "a" * 41, "käse")),
    ],
)
def test_name_that_would_be_changed_is_refused(name: str, value: object) -> None:
    """The first deploy would work under another name, and all later ones would not find it."""
    (problem,) = variables.bad_names({name: value})
    assert problem.startswith(f"{name} is {value!r}: allowed ")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("stack_servces", "stack_services"),
        ("ec2_instance_typ", "ec2_instance_type"),
        ("docker_manage_exsting", "docker_manage_existing"),
        ("host_swap_mb", "host_swap_mib"),
        ("image_base_pull", "image_base_pulled"),
        # The prefix itself is misspelt.
        ("stak_services", "stack_services"),
        ("ecs2_instance_type", "ec2_instance_type"),
    ],
)
def test_misspelt_variable_is_refused(name: str, meant: str) -> None:
    """Ansible ignores a variable that nobody reads: the default would win without a word."""
    expected = f"{name} is no variable of this project; did you mean {meant}?"
    assert list(variables.misspelt(["ec2_count", name, "my_own"], OPTIONS)) == [expected]


def test_name_that_resembles_nothing_gets_no_suggestion() -> None:
    (problem,) = variables.misspelt(["ec2_qqqqqqqqqqqq"], OPTIONS)
    assert problem == "ec2_qqqqqqqqqqqq is no variable of this project"


@pytest.mark.parametrize(
    "name", ["ansible_host", "group_names", "inventory_dir", "my_own", "vault_password", "__stack_internal", "_x"]
)
def test_foreign_variable_is_none_of_our_business(name: str) -> None:
    assert list(variables.misspelt([name], OPTIONS)) == []


def test_every_variable_of_a_role_is_known() -> None:
    """A role whose specification is not read would have all its variables refused."""
    assert set(OPTIONS) == {path.name for path in (ROOT / "roles").iterdir() if (path / "meta").is_dir()}
    assert list(variables.misspelt([name for of_role in OPTIONS.values() for name in of_role], OPTIONS)) == []


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("ec2_public_ports", ["http"], "a list, each entry a whole number"),
        ("ec2_ssh_cidrs", {"mine": 1}, "a list, each entry text"),
        ("docker_manage_existing", "perhaps", "true or false"),
        ("stack_images", "flask-fleet/app", "a mapping of names to values"),
    ],
)
def test_wrong_type_is_refused(name: str, value: object, allowed: str) -> None:
    assert list(variables.wrong_types({name: value}, OPTIONS)) == [f"{name} is {value!r}: allowed is {allowed}"]


def test_every_type_has_a_word() -> None:
    """An option of a type without a word would end in a traceback."""
    declared = [option for of_role in OPTIONS.values() for option in of_role.values()]
    assert {option["type"] for option in declared} <= variables.TYPES.keys()
    assert {option["elements"] for option in declared if option["type"] == "list"} <= variables.TYPES.keys()


def test_choice_is_named() -> None:
    options = {"role": {"role_mode": {"type": "str", "choices": ["fast", "safe"]}}}
    assert list(variables.wrong_types({"role_mode": "slow"}, options)) == [
        "role_mode is 'slow': allowed is fast or safe"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ec2_count", "2"),
        ("ec2_public_ports", ["80", 443]),
        ("ec2_ssh_cidrs", "10.0.0.0/8"),
        ("docker_manage_existing", "yes"),
        ("stack_directory", "~/stack"),
    ],
)
def test_type_that_ansible_converts_is_allowed(name: str, value: object) -> None:
    assert list(variables.wrong_types({name: value}, OPTIONS)) == []
