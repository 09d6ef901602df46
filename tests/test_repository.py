"""Rules for the repository as a whole: nothing private, nothing stale, and no link that leads nowhere."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import ansible
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from preflight import refusals
from roles.ec2.filter_plugins import ec2_plan
from roles.ec2.library import instance_settings, tagged_resources_info
from tests.project import ROOT, load_mapping, relative

SERVER_LOCKS = [ROOT / f"files/servers/{name}/{name}.txt" for name in ("gunicorn", "granian")]
LOCKS = [ROOT / "requirements.txt", ROOT / "app/requirements.txt", *SERVER_LOCKS]
AUDIT_LOCKS = [ROOT / "audit/tools.txt", ROOT / "audit/checkov.txt"]

# Put together from parts, so that this file does not contain what it forbids.
REGISTRIES = [
    ".".join(parts)
    for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("debian", "org"))
]
# /home/admin is the login of Debian's machine image, on every instance the same.
DEVELOPER_PATH = re.compile(r"(?<![\w./-])/(?:(?:work|farm)/|(?:home|Users)/(?!admin\b)[a-z][\w.-]*)")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE" + r" KEY-----")
UNVERIFIED_TLS = re.compile(
    r"validate_certs\s*[:=]\s*[\"']?(?:false|no)\b|verify\s*=\s*False|CERT_NON[E]\b|--insecur[e]\b|--trusted-hos[t]\b"
    r"|sslVerify\W+false|NODE_TLS_REJECT_UNAUTHORIZE[D]|--no-check-certificat[e]\b",
    re.IGNORECASE,
)
PLACES = {"audit", "bench", "fleet", "molecule", "plugins", "preflight", "rehearsal", "roles", "tests"}
CONTROLLER = {"plugins", "preflight", "roles"}
MAY_IMPORT = {
    "audit": {"audit", "bench"},
    "bench": {"bench"},
    "fleet": {"fleet"},
    "plugins": CONTROLLER,
    "preflight": CONTROLLER,
    "rehearsal": {"rehearsal"},
    "roles": CONTROLLER,
}
"""What the code of each place may import of this project: tests import code, and never the other way round."""
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")


def tool(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of this environment, or one of the system, in the project's root."""
    own = Path(sys.executable).with_name(name)
    command = [str(own) if own.exists() else name, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, cwd=ROOT)


def tracked(*patterns: str) -> list[Path]:
    """Return the files that belong to the repository."""
    listing = tool("git", "ls-files", "-z", "--", *patterns)
    assert listing.returncode == 0, listing.stderr
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    """Return the name and content of every tracked text file."""
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((relative(path), content.decode("utf-8")))
    assert found
    return found


def occurrences(pattern: "re.Pattern[str]") -> list[str]:
    """Return where a pattern occurs in the tracked files."""
    return [
        f"{name}:{number}: {line.strip()[:160]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def prose(path: Path) -> str:
    """Return a Markdown file without its code."""
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, as GitHub forms them."""
    text = re.sub(r"^(```|~~~).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    """Return the links of a Markdown file that lead nowhere inside the project."""
    broken = []
    for link in LINK.findall(prose(path)):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(f"{relative(path)}: {link}")
    return broken


def locked(path: Path) -> dict[str, set[str]]:
    """Return the versions that a lock file allows, by package; several where the machine or Python decides."""
    versions: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = re.fullmatch(
            r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.+!]+)(?: ; [^#]+?)?((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line
        )
        assert entry, f"{relative(path)}: not one version with its hashes: {line[:120]}"
        versions.setdefault(canonicalize_name(entry[1]), set()).add(entry[2])
    assert versions
    return versions


def declared() -> list[Requirement]:
    """Return the requirements that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [entry for group in project["dependency-groups"].values() for entry in group if isinstance(entry, str)]
    return [Requirement(text) for text in [*project["project"]["dependencies"], *groups]]


def imported(path: Path) -> set[str]:
    """Return the packages that a Python file imports anywhere, each by its first name."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_imports_have_one_direction(place: str) -> None:
    """Whoever changes a test, or one place, knows what else that can break."""
    code = tracked(f"{place}/*.py")
    assert code
    refused = {relative(path): imported(path) & PLACES - MAY_IMPORT[place] for path in code}
    assert {name: found for name, found in refused.items() if found} == {}


def test_the_machines_program_needs_nothing_but_python() -> None:
    """A machine has Debian's Python, and nothing of PyPI."""
    known = sys.stdlib_module_names | {"fleet"}
    assert {relative(path): imported(path) - known for path in tracked("fleet/*.py") if imported(path) - known} == {}


def test_modules_and_controller_know_the_same_of_aws() -> None:
    """A module is sent without what the controller has, so what both have to know is written twice."""
    assert tagged_resources_info.DENIED == refusals.DENIED
    assert instance_settings.BURSTABLE == ec2_plan.BURSTABLE


def test_no_package_registry_is_named() -> None:
    """The person who installs decides where packages come from: a mirror, a proxy, a cache."""
    assert occurrences(re.compile("|".join(re.escape(host) for host in REGISTRIES), re.IGNORECASE)) == []


def test_no_path_of_a_developers_machine_is_named() -> None:
    """A path that exists on one machine only is a fault on every other."""
    assert occurrences(DEVELOPER_PATH) == []


def test_no_private_key_is_tracked() -> None:
    """A key that was published once is known for good, even if it was "only for tests"."""
    assert occurrences(PRIVATE_KEY) == []


def test_certificates_are_always_verified() -> None:
    """Where a certificate is our own, its authority is given to the client instead."""
    assert occurrences(UNVERIFIED_TLS) == []


def test_text_files_end_their_lines_as_they_should() -> None:
    """Shells, Docker and SSH do not accept carriage returns or a missing last line break everywhere."""
    assert [name for name, text in texts() if "\r" in text or (text and not text.endswith("\n"))] == []


def test_markdown_links_lead_somewhere() -> None:
    """A moved file or a renamed heading is noticed before a reader notices it."""
    assert (ROOT / "README.md").is_file()
    assert [link for path in tracked("*.md") for link in broken_links(path)] == []


@pytest.mark.parametrize("lock", [*LOCKS, *AUDIT_LOCKS], ids=relative)
def test_every_requirement_has_one_version_and_its_hashes(lock: Path) -> None:
    """Only then does pip refuse everything that is not exactly what was tested."""
    assert locked(lock)


@pytest.mark.parametrize(
    ("lock", "shared"),
    list(zip(LOCKS[1:], ({"flask", "gunicorn"}, {"gunicorn"}, {"granian"}), strict=True)),
    ids=["app", "gunicorn", "granian"],
)
def test_locks_agree_on_what_they_share(lock: Path, shared: set[str]) -> None:
    """Tests of apps and servers run in the controller's environment, with the versions of the images."""
    controller, other = locked(LOCKS[0]), locked(lock)
    assert shared <= controller.keys() & other.keys()
    assert {name: versions for name, versions in other.items() if not versions <= controller.get(name, versions)} == {}


def test_lock_holds_what_the_project_declares() -> None:
    """A requirement that was added or raised without renewing the lock would be missing on the next machine."""
    versions = locked(ROOT / "requirements.txt")
    for requirement in declared():
        found = versions.get(canonicalize_name(requirement.name), set())
        assert found, f"{requirement} is not in the lock"
        # Where the requirement is for one kind of machine only, the others have versions of their own.
        fits = any if requirement.marker else all
        assert fits(requirement.specifier.contains(one) for one in found), f"{requirement} is locked as {found}"


def test_what_is_patched_is_pinned() -> None:
    """The rehearsal replaces parts of moto's inside, so another version must never come in unasked."""
    (moto,) = [requirement for requirement in declared() if requirement.name == "moto"]
    assert [specifier.operator for specifier in moto.specifier] == ["=="]


def test_installed_collections_satisfy_the_requirements() -> None:
    """Then `ansible-galaxy collection install -r requirements.yml` has nothing to do and needs no network."""
    folder = Path(ansible.__file__).parents[1] / "ansible_collections"
    for entry in load_mapping(ROOT / "requirements.yml")["collections"]:
        manifest = Path(folder, *entry["name"].split("."), "MANIFEST.json")
        version = json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
        assert SpecifierSet(entry["version"]).contains(version), (
            f"{entry['name']} is {version}, wanted {entry['version']}"
        )


def test_ansible_knows_every_key_of_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible says nothing about a misspelt key; it just does not do what the key was written for."""
    monkeypatch.setenv("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
    complaints = tool("ansible-config", "validate", "-t", "all").stderr.splitlines()
    assert [line for line in complaints if line.strip()] == []


def test_steps_of_the_makefile_are_a_name_and_a_command() -> None:
    """A comma in the name would make its rest the command, which is noticed only when the step runs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"\$\(call step,[^,]*,([^\s)]*)", makefile)
    known = {"ansible-playbook", "molecule", "pytest", "python", "python3", "ruff"}
    assert len(commands) == makefile.count("$(call step,") > 0
    assert {command for command in commands if not command.startswith("$(")} <= known


def test_exceptions_to_the_rules_are_made_where_they_are_needed() -> None:
    """A skip list hides the next mistake too; a noqa on its line excuses one, and says why."""
    configuration = load_mapping(ROOT / ".ansible-lint")
    assert configuration["profile"] == "production"
    assert configuration.keys().isdisjoint({"skip_list", "warn_list", "mock_modules", "mock_roles", "kinds"})
