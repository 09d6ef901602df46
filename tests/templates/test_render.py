"""The harness renders what a play would render, and fails where a play would fail."""

import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleUndefinedVariable

from bench.render import MANAGED, Renderer

TEMPLATE = r"""{{ ansible_managed | comment }}
{% for name in demo_names %}
{{ name | demo_shout }} on {{ ansible_facts['hostname'] }} \d
{% endfor %}
{% include "part.j2" %}

{{ __demo_greeting }}
"""


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    """Make a folder with one role that uses everything the harness promises."""
    content = {
        "defaults/main.yml": "---\ndemo_who: world\ndemo_names: [a, b]\n",
        "vars/main.yml": '---\n__demo_greeting: "hello {{ demo_who }}"\n',
        "templates/whole.j2": TEMPLATE,
        "templates/part.j2": "part of {{ demo_who }}\n",
        "templates/undefined.j2": "{{ demo_nobody_set_this }}\n",
        "filter_plugins/demo.py": (
            "class FilterModule:\n    def filters(self):\n        return {'demo_shout': lambda text: text.upper()}\n"
        ),
    }
    for name, text in content.items():
        path = tmp_path / "roles/demo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "roles"


def test_defaults_vars_facts_and_plugins_are_used(roles: Path) -> None:
    """Overrides reach the variables that are derived from them, as in a play."""
    rendered = Renderer(roles)("demo", "whole.j2", facts={"hostname": "h1"}, demo_who="you")
    assert rendered == f"#\n# {MANAGED}\n#\nA on h1 \\d\nB on h1 \\d\npart of you\nhello you\n"


def test_undefined_variable_is_an_error(roles: Path) -> None:
    """An empty text in place of a forgotten variable would pass most assertions."""
    with pytest.raises(AnsibleUndefinedVariable, match="demo_nobody_set_this"):
        Renderer(roles)("demo", "undefined.j2")


def test_given_text_is_data(roles: Path) -> None:
    text = Renderer(roles)("demo", "whole.j2", facts={"hostname": "h1"}, demo_who="{{ 1 + 1 }}")
    assert "part of {{ 1 + 1 }}" in text


def test_harness_and_play_agree(roles: Path) -> None:
    """The same template through ansible-playbook is the same text, to the last line break."""
    playbook, out = roles.parent / "play.yml", roles.parent / "out"
    playbook.write_text(
        f"""---
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_managed: "{MANAGED}"
    ansible_facts: {{hostname: h1}}
    ansible_python_interpreter: {sys.executable}
  roles: [demo]
""",
        encoding="utf-8",
    )
    (roles / "demo/tasks").mkdir()
    (roles / "demo/tasks/main.yml").write_text(
        f"---\n- ansible.builtin.template: {{src: whole.j2, dest: {out}, mode: '0600'}}\n", encoding="utf-8"
    )
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook)]
    subprocess.run(command, check=True, capture_output=True, timeout=600, cwd=roles.parent)
    assert out.read_text(encoding="utf-8") == Renderer(roles)("demo", "whole.j2", facts={"hostname": "h1"})
