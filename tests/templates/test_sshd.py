"""The configuration of sshd; other tests on an instance show that sshd understands and obeys it."""

from bench.render import MANAGED, Renderer

DROP_IN = "etc/ssh/sshd_config.d/10-flask-fleet.conf.j2"
DEBIAN_12 = {"distribution_major_version": "12"}
DEBIAN_13 = {"distribution_major_version": "13"}


def options(text: str) -> dict[str, str]:
    """Read the options, each of which has to be there once, because sshd takes the first of two."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    read = dict(line.split(maxsplit=1) for line in lines)
    assert len(read) == len(lines)
    return read


def test_every_option_has_one_line_and_one_value(render: Renderer) -> None:
    """A list that was folded over two lines would end at its first space."""
    text = render("sshd", DROP_IN, facts=DEBIAN_13)
    assert MANAGED in text
    assert [name for name, value in options(text).items() if " " in value and name != "PerSourcePenalties"] == []


def test_an_older_sshd_is_told_only_what_it_understands(render: Renderer) -> None:
    """With one unknown word sshd does not start at all."""
    new = options(render("sshd", DROP_IN, facts=DEBIAN_13))
    old = options(render("sshd", DROP_IN, facts=DEBIAN_12))
    assert new.keys() - old.keys() == {"KexAlgorithms", "PerSourcePenalties"}


def test_the_inventory_has_the_last_word(render: Renderer) -> None:
    read = options(render("sshd", DROP_IN, facts=DEBIAN_13, sshd_options={"MaxAuthTries": 6, "AllowUsers": "admin"}))
    assert (read["MaxAuthTries"], read["AllowUsers"], read["PasswordAuthentication"]) == ("6", "admin", "no")
