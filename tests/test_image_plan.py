"""An image is named by its content: the same content is never built twice, and another content never reused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from plugins.filter.build_context import Build, context_files, hashed_builds
from roles.image.filter_plugins.image_plan import PlannedImage, application_builds, image_plan, images_to_build
from tests.project import ROOT

BASE = {"suite": "trixie", "packages": "ca-certificates", "revision": "1"}
PULLED = "debian:trixie-slim"

Change = Callable[[Path], object]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with a chain of images, one of which ignores some of its files."""
    content = {
        "python/Dockerfile": "ARG BASE\nFROM $BASE\n",
        "nginx/Dockerfile": "ARG BASE\nFROM $BASE\n",
        "app/Dockerfile": "ARG BASE\nFROM $BASE\nCOPY . .\n",
        "app/.dockerignore": "# Not needed to run:\ntests\n*.log\n**/*.pyc\n!kept.log\n",
        "app/wsgi.py": "application = None\n",
        "app/run": "#!/bin/sh\n",
        "app/kept.log": "kept\n",
        "app/noise.log": "noise\n",
        "app/hello/views.py": "VIEWS = ()\n",
        "app/hello/views.pyc": "compiled\n",
        "app/tests/test_views.py": "assert True\n",
    }
    for name, text in content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "app/link").symlink_to("run")
    return tmp_path


def builds() -> list[Build]:
    """List the images with the child first, an order that cannot be built."""
    return [
        {"name": "app", "context": "app", "parent": "python"},
        {"name": "nginx", "context": "nginx", "parent": "base"},
        {"name": "python", "context": "python", "parent": "base"},
    ]


def plan(project: Path, base: dict[str, str] | None = None) -> list[PlannedImage]:
    """Plan the images of the project."""
    return image_plan(hashed_builds(builds(), str(project)), "flask-fleet", base or BASE, {})


def references(project: Path, base: dict[str, str] | None = None) -> dict[str, str]:
    """Return the reference of every image by its name."""
    return {image["name"]: image["reference"] for image in plan(project, base)}


def test_parents_come_before_children(project: Path) -> None:
    """The list is built from the front, and FROM needs an image that exists."""
    planned = plan(project)
    assert {image["name"] for image in planned} == {"base", "nginx", "python", "app"}
    built: set[str] = {""}
    for image in planned:
        assert image["parent_reference"] in built
        built.add(image["reference"])


def test_images_are_built_from_the_parent_that_was_asked_for(project: Path) -> None:
    """The build argument BASE is this reference."""
    by_name = {image["name"]: image for image in plan(project)}
    assert by_name["app"]["parent_reference"] == by_name["python"]["reference"]
    assert by_name["python"]["parent_reference"] == by_name["nginx"]["parent_reference"] == by_name["base"]["reference"]
    assert by_name["app"]["context"] == str(project / "app")
    assert by_name["base"]["context"] == ""


def test_reference_is_one_that_docker_accepts(project: Path) -> None:
    """It has a repository, a name, and a tag that tells the content."""
    for name, reference in references(project).items():
        repository, _, tag = reference.partition(":")
        assert repository == f"flask-fleet/{name}"
        assert len(tag) == 12
        assert int(tag, 16) >= 0


@pytest.mark.parametrize("parent", ["pyhton", "", "app"])
def test_unknown_parent_is_an_error(project: Path, parent: str) -> None:
    """A misspelt parent, or an image that is its own, would otherwise be waited for without end."""
    with pytest.raises(AnsibleFilterError, match=rf"app \(from {parent}\)"):
        image_plan(
            hashed_builds([{"name": "app", "context": "app", "parent": parent}], str(project)), "flask-fleet", BASE, {}
        )


def test_circle_is_an_error(project: Path) -> None:
    """Images that are each other's parents can never be built; the message does not blame a third one."""
    circle: list[Build] = [
        {"name": "nginx", "context": "nginx", "parent": "base"},
        {"name": "app", "context": "app", "parent": "python"},
        {"name": "python", "context": "python", "parent": "app"},
    ]
    with pytest.raises(AnsibleFilterError, match=r"app \(from python\), python \(from app\)") as caught:
        image_plan(hashed_builds(circle, str(project)), "flask-fleet", BASE, {})
    assert "nginx" not in str(caught.value)


def rename(path: Path) -> None:
    """Give a file another name of the same length."""
    path.rename(path.with_name("wsgj.py"))


def swap_contents(app: Path) -> None:
    """Exchange the contents of two files, so that the sets of names and of contents stay the same."""
    first, second = app / "wsgi.py", app / "run"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def swallow(app: Path) -> None:
    """Append a file with its name to the one before it, so that the bytes in sequence stay the same."""
    swallowed = app / "wsgi.py"
    with (app / "run").open("ab") as file:
        file.write(b"wsgi.py-" + swallowed.read_bytes())
    swallowed.unlink()


def relink(app: Path) -> None:
    """Point a link elsewhere."""
    (app / "link").unlink()
    (app / "link").symlink_to("wsgi.py")


def follow(app: Path) -> None:
    """Replace a link by a copy of what it led to."""
    (app / "link").unlink()
    (app / "link").write_bytes((app / "run").read_bytes())


def other_umask(app: Path) -> None:
    """Set the modes of files as with a stricter umask, and with a more generous one."""
    (app / "wsgi.py").chmod(0o600)
    (app / "run").chmod(0o664)


RELEVANT: dict[str, Change] = {
    "content": lambda app: (app / "wsgi.py").write_text("application = 1\n", encoding="utf-8"),
    "content in a folder": lambda app: (app / "hello/views.py").write_text("", encoding="utf-8"),
    "Dockerfile": lambda app: (app / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8"),
    "name": lambda app: rename(app / "wsgi.py"),
    "folder": lambda app: (app / "hello").rename(app / "hallo"),
    "new file": lambda app: (app / "new.py").touch(),
    "file gone": lambda app: (app / "wsgi.py").unlink(),
    "executable": lambda app: (app / "run").chmod(0o755),
    "link target": relink,
    "link to a folder": lambda app: (app / "folder").symlink_to("hello"),
    "link becomes its target": follow,
    "contents exchanged": swap_contents,
    "file swallowed by another": swallow,
    "negated file": lambda app: (app / "kept.log").write_text("other\n", encoding="utf-8"),
    "no longer ignored": lambda app: (app / ".dockerignore").write_text("tests\n", encoding="utf-8"),
}
IRRELEVANT: dict[str, Change] = {
    "nothing": lambda _: None,
    "ignored by suffix": lambda app: (app / "noise.log").write_text("more\n", encoding="utf-8"),
    "ignored folder": lambda app: (app / "tests/test_more.py").touch(),
    "ignored at any depth": lambda app: (app / "hello/other.pyc").touch(),
    "time of change": lambda app: os.utime(app / "wsgi.py", (0, 0)),
    "umask": other_umask,
    "written again": lambda app: (app / "wsgi.py").write_bytes((app / "wsgi.py").read_bytes()),
}


@pytest.mark.parametrize("change", RELEVANT.values(), ids=RELEVANT.keys())
def test_relevant_change_makes_another_image(project: Path, change: Change) -> None:
    """A change that the build can see changes the name of this image, and of no other."""
    before = references(project)
    change(project / "app")
    after = references(project)
    assert {name for name in before if before[name] != after[name]} == {"app"}


@pytest.mark.parametrize("change", IRRELEVANT.values(), ids=IRRELEVANT.keys())
def test_irrelevant_change_makes_the_same_image(project: Path, change: Change) -> None:
    """A fresh checkout, a test run or a log file must not cost a build and a roll-out."""
    before = references(project)
    change(project / "app")
    assert references(project) == before


def test_file_from_elsewhere_counts_like_one_of_the_folder(project: Path) -> None:
    """Its name and its content count."""
    build: Build = {"name": "app", "context": "app", "parent": "base"}
    (whole,) = hashed_builds([build], str(project))
    (project / "app/kept.log").rename(project / "elsewhere")
    (apart,) = hashed_builds([{**build, "others": {"kept.log": "elsewhere"}}], str(project))
    assert apart["digest"] == whole["digest"]
    assert apart["others"] == {"kept.log": str(project / "elsewhere")}


def test_image_belongs_to_the_stack_that_runs_it(project: Path) -> None:
    """Neither of two stacks may remove the other's image; the parents of both are shared."""
    built = hashed_builds(builds(), str(project))
    one, two = (
        {image["name"]: image for image in image_plan(built, "flask-fleet", BASE, {"app": owner})}
        for owner in ("a", "b")
    )
    assert [name for name in one if one[name]["reference"] != two[name]["reference"]] == ["app"]
    assert one["app"]["reference"] == two["app"]["reference"].replace("b/", "a/")


def test_same_folder_elsewhere_is_the_same_image(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two people with the same checkout name the same images."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "checkout"
    before = references(project)
    project.rename(elsewhere)
    assert references(elsewhere) == before


def test_changed_parent_makes_other_children(project: Path) -> None:
    """A security fix in the python image has to reach the app; nginx is not built from it."""
    before = references(project)
    (project / "python/Dockerfile").write_text("ARG BASE\nFROM $BASE\nRUN true\n", encoding="utf-8")
    after = references(project)
    assert {name for name in before if before[name] != after[name]} == {"python", "app"}


@pytest.mark.parametrize("key", sorted(BASE))
def test_changed_base_makes_everything_new(project: Path, key: str) -> None:
    """A new revision asks for the present Debian packages."""
    before, after = references(project), references(project, BASE | {key: "other"})
    assert [name for name in before if before[name] == after[name]] == []


def test_pulled_base_is_not_built(project: Path) -> None:
    """The children are built from the image that the variable names, and are named after it."""
    planned = {image["name"]: image for image in plan(project, {"pulled": PULLED})}
    assert set(planned) == {"nginx", "python", "app"}
    assert planned["python"]["parent_reference"] == PULLED
    other = references(project, {"pulled": "debian:bookworm-slim"})
    assert [name for name in planned if planned[name]["reference"] == other[name]] == []
    assert [name for name, reference in references(project).items() if reference in other.values()] == []


def test_files_of_a_context(project: Path) -> None:
    """The list is complete; the rules of the ignore file are the engine's, negation included."""
    assert context_files(project / "app", project / "app/.dockerignore") == [
        ".dockerignore",
        "Dockerfile",
        "hello/views.py",
        "kept.log",
        "link",
        "run",
        "wsgi.py",
    ]


def test_dockerfile_counts_even_if_ignored(project: Path) -> None:
    """`*` with exceptions is the usual way to ignore everything else, and the build needs the Dockerfile."""
    (project / "app/.dockerignore").write_text("*\n!wsgi.py\n", encoding="utf-8")
    assert context_files(project / "app", project / "app/.dockerignore") == [".dockerignore", "Dockerfile", "wsgi.py"]


def test_context_without_ignore_file_is_whole(project: Path) -> None:
    """Nothing is left out unless the file asks for it."""
    (project / "app/.dockerignore").unlink()
    assert {"noise.log", "tests/test_views.py", "hello/views.pyc"} <= set(
        context_files(project / "app", project / "app/.dockerignore")
    )


def test_apps_own_tests_do_not_make_a_new_image() -> None:
    """The sample app's ignore file leaves them out."""
    found = context_files(ROOT / "app", ROOT / "app/.dockerignore")
    assert {"Dockerfile", "requirements.txt", "wsgi.py", "hello/views.py"} <= set(found)
    assert [name for name in found if name.startswith("tests/") or name.endswith(".pyc")] == []


@pytest.mark.parametrize(
    ("wanted", "present", "expected"),
    [
        (["app", "nginx"], [], ["base", "nginx", "python", "app"]),
        (["app"], [], ["base", "python", "app"]),
        (["nginx"], [], ["base", "nginx"]),
        (["app"], ["base"], ["python", "app"]),
        (["app"], ["base", "python"], ["app"]),
        # Somebody pruned the base: the parent that is there is enough.
        (["app"], ["python"], ["app"]),
        (["app"], ["app"], []),
        (["app", "nginx"], ["app"], ["base", "nginx"]),
        (["app", "python"], ["app", "base"], ["python"]),
        (["app", "nginx"], ["base", "nginx", "python", "app"], []),
        ([], [], []),
    ],
)
def test_exactly_the_missing_chain_is_built(
    project: Path, wanted: list[str], present: list[str], expected: list[str]
) -> None:
    """A build takes minutes: existing images are never built again, and needed ones never forgotten, parents first."""
    planned = plan(project)
    by_name = {image["name"]: image["reference"] for image in planned}
    chosen = images_to_build(planned, wanted, [by_name[name] for name in present])
    names = [image["name"] for image in chosen]
    assert sorted(names) == sorted(expected)
    assert names == [image["name"] for image in planned if image["name"] in expected]


def test_older_image_of_the_same_name_is_not_enough(project: Path) -> None:
    """An image exists only if its whole reference does."""
    old = list(references(project).values())
    (project / "app/wsgi.py").write_text("application = 2\n", encoding="utf-8")
    assert [image["name"] for image in images_to_build(plan(project), ["app"], old)] == ["app"]


def test_pulled_base_is_never_in_the_list(project: Path) -> None:
    """It has no recipe; the engine pulls it when it builds the first child."""
    chosen = images_to_build(plan(project, {"pulled": PULLED}), ["app"], [])
    assert [image["name"] for image in chosen] == ["python", "app"]


def recipe_plan(project: Path, server: str = "gunicorn") -> PlannedImage:
    """Plan the app's image with the recipe, which it needs when it has no Dockerfile."""
    build: Build = {"name": "app", "context": "app", "parent": "python", "recipe": "recipe", "server": server}
    python: Build = {"name": "python", "context": "python", "parent": "base"}
    return image_plan(hashed_builds([python, build], str(project)), "flask-fleet", BASE, {})[-1]


@pytest.fixture
def recipe(project: Path) -> Path:
    """Remove the app's Dockerfile and ignore file, and write a recipe."""
    (project / "recipe").mkdir()
    (project / "recipe/Dockerfile").write_text("ARG BASE\nFROM $BASE\nCOPY . .\n", encoding="utf-8")
    (project / "recipe/dockerignore").write_text("tests\n", encoding="utf-8")
    for name in ("Dockerfile", ".dockerignore"):
        (project / "app" / name).unlink()
    return project / "recipe"


def test_folder_without_a_dockerfile_gets_the_recipes(project: Path, recipe: Path) -> None:
    """The recipe's list of excluded files applies too, unless the folder has its own."""
    planned = recipe_plan(project)
    assert (planned["dockerfile"], planned["ignore"]) == (str(recipe / "Dockerfile"), str(recipe / "dockerignore"))
    assert planned["server"] == "gunicorn"
    (project / "app/.dockerignore").write_text("hello\n", encoding="utf-8")
    assert recipe_plan(project)["ignore"] == str(project / "app/.dockerignore")


def test_own_dockerfile_wins(project: Path, recipe: Path) -> None:
    """Only the folder's own list excludes files, so the image is the one that it always was."""
    (project / "app/Dockerfile").write_text("ARG BASE\nFROM $BASE\n", encoding="utf-8")
    planned = recipe_plan(project)
    assert (planned["dockerfile"], planned["server"]) == ("", "")
    assert planned["reference"] == references(project)["app"]
    (recipe / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    assert recipe_plan(project) == planned


BY_RECIPE: dict[str, Change] = {
    "recipe": lambda project: (project / "recipe/Dockerfile").write_text("FROM scratch\n", encoding="utf-8"),
    "what stays out": lambda project: (project / "recipe/dockerignore").write_text("hello\n", encoding="utf-8"),
    "the app": lambda project: (project / "app/wsgi.py").write_text("application = 1\n", encoding="utf-8"),
}


@pytest.mark.parametrize("change", BY_RECIPE.values(), ids=BY_RECIPE.keys())
@pytest.mark.usefixtures("recipe")
def test_recipe_is_part_of_the_name(project: Path, change: Change) -> None:
    """A corrected recipe has to reach the apps that are built with it."""
    before = recipe_plan(project)["reference"]
    assert recipe_plan(project)["reference"] == before
    change(project)
    assert recipe_plan(project)["reference"] != before


@pytest.mark.usefixtures("recipe")
def test_server_is_part_of_the_name(project: Path) -> None:
    """The image contains the server."""
    assert recipe_plan(project)["reference"] != recipe_plan(project, "granian")["reference"]


def test_application_is_built_from_what_its_server_needs() -> None:
    """Debian's packages bring uWSGI; pip installs the others with the app's requirements."""
    applications = [{"name": name, "context": name} for name in ("a", "b", "c")]
    servers = {"gunicorn": {"image": "python"}, "granian": {"image": "python"}, "uwsgi": {"image": "uwsgi"}}
    builds = application_builds(applications, {"b": "uwsgi", "c": "granian"}, servers, "r")
    assert [(build["name"], build["parent"], build["server"]) for build in builds] == [
        ("a", "python", "gunicorn"),
        ("b", "uwsgi", "uwsgi"),
        ("c", "python", "granian"),
    ]


def test_what_nobody_wants_in_an_image_stays_out(tmp_path: Path) -> None:
    """A folder without a list leaves out secrets, history and leftovers."""
    kept = {"wsgi.py", "shop/views.py", "shop/static/site.css", "environment.py", "requirements.txt"}
    left = {".env", ".env.local", ".git/config", ".venv/bin/python", "tests/test_it.py", "node_modules/x.js"}
    left |= {"shop/__pycache__/views.pyc", "shop/old.pyc", "front/node_modules/y.js", "instance/shop.sqlite"}
    for name in kept | left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert set(context_files(tmp_path, ROOT / "files/flask/dockerignore")) == kept | {"front/"}
