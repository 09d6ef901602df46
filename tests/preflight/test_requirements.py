"""How a folder without a Dockerfile lists its requirements for pip, in the forms that Flask projects use."""

from pathlib import Path

import pytest

from preflight.requirements import requirement_problems

POETRY = "[build-system]\nrequires = ['poetry-core']\n[tool.poetry]\npackage-mode = false\n"


def problems(folder: Path, **files: bytes | str) -> list[str]:
    """Write files, whose names have _ for what a keyword cannot have, and check the folder."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(requirement_problems(folder))


@pytest.mark.parametrize(
    "files",
    [
        {"requirements_txt": "flask\n-e .\n"},
        {"requirements_txt": "flask  # für alle\n".encode("utf-16")},
        {"requirements_txt": "# -*- coding: latin-1 -*-\nflask  # für alle\n".encode("latin-1")},
        {"requirements_txt": "flask\n", "uv_lock": "version = 1\n", "Pipfile": "[packages]\n"},
        {"pyproject_toml": "[project]\nname = 'shop'\ndependencies = ['flask']\n"},
        {"pyproject_toml": POETRY + "[project]\ndependencies = ['flask']\n"},
    ],
)
def test_usual_form_is_allowed(tmp_path: Path, files: dict[str, bytes | str]) -> None:
    assert problems(tmp_path, **files) == []


@pytest.mark.parametrize(
    ("files", "way_out"),
    [
        ({"pyproject_toml": "", "uv_lock": ""}, "run uv export --no-dev --no-emit-project --output-file requirements"),
        ({"pyproject_toml": "", "pdm_lock": ""}, "run pdm export --prod --output requirements.txt"),
        ({"pyproject_toml": POETRY, "poetry_lock": ""}, "&& poetry export --output requirements.txt"),
        ({"pyproject_toml": POETRY}, "&& poetry export --output requirements.txt, or dependencies in [project]"),
        ({"Pipfile": "", "Pipfile_lock": ""}, "run pipenv requirements > requirements.txt"),
        (
            {"requirements__dev_txt": "", "requirements__prod_txt": ""},
            "-r requirements/dev.txt or requirements/prod.txt",
        ),
        ({"requirements_txt": "flask\n# für\n".encode("latin-1")}, "line 2 is no UTF-8: allowed is UTF-8, or a first"),
        ({"pyproject_toml": "[project"}, "is no TOML"),
        ({}, "is no Dockerfile, and no requirements.txt or pyproject.toml to install instead"),
    ],
)
def test_form_that_pip_does_not_read_is_refused_with_the_way_out(
    tmp_path: Path, files: dict[str, bytes | str], way_out: str
) -> None:
    """The build would fail after minutes, or install other versions than the tested ones."""
    (problem,) = problems(tmp_path, **files)
    assert way_out in problem
