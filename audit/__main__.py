"""The command of `make audit`: runs all checks, shows one table, and fails when something has to be mended."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

from audit.builds import base_twice, flipped_hash
from audit.floors import Floor, below
from audit.nginx import rendered
from audit.report import Finding, Outcome, Reason, judge, table
from bench.project import ROOT, relative

TOOLS = ROOT / ".cache/audit/tools/bin"
CHECKOV = ROOT / ".cache/audit/checkov/bin"
PACKAGES = ROOT / ".cache/packages"
BILLS = ROOT / "sbom"
TIMEOUT_S = 600

HASH = "sha256:[0-9a-f]{64}"


def tool(program: Path, *arguments: str, fails_on_findings: bool = True) -> str:
    """Run a tool and return what it printed.

    Args:
        program: The tool.
        *arguments: Its arguments.
        fails_on_findings: Whether a failure may only mean that the tool found something.

    Raises:
        RuntimeError: The tool printed nothing, or failed for another reason.
    """
    done = subprocess.run(
        [str(program), *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    if done.returncode and not fails_on_findings:
        raise RuntimeError(f"{program.name} failed: {done.stderr.strip()}")
    if not done.stdout.strip():
        raise RuntimeError(f"{program.name} said nothing but: {done.stderr.strip()}")
    return done.stdout


def tracked(*patterns: str) -> list[str]:
    """List files of the repository by git's patterns, with their paths from the project's folder."""
    return tool(Path("git"), "ls-files", "--", *patterns).split()


def hadolint() -> Outcome:
    """Check the Dockerfiles with hadolint."""
    files = tracked("*Dockerfile")
    found = json.loads(tool(TOOLS / "hadolint", "--format", "json", *files))
    findings = [Finding(one["code"], one["file"], one["message"], one["line"]) for one in found]
    return Outcome(tool(TOOLS / "hadolint", "--version").split()[-1], "Dockerfiles", len(files), findings)


def checkov() -> Outcome:
    """Check Dockerfiles and Ansible against Checkov's own rules; of AWS it knows next to nothing here."""
    options = ["--skip-download", "--compact", "--output", "json", "--framework", "dockerfile", "ansible"]
    reports = json.loads(tool(CHECKOV / "checkov", *options, "--directory", "."))
    failed = [one for report in reports for one in report["results"]["failed_checks"]]
    findings = [
        Finding(one["check_id"], one["file_path"].lstrip("/"), one["check_name"], one["file_line_range"][0])
        for one in failed
    ]
    passed = sum(report["summary"]["passed"] for report in reports)
    version = tool(CHECKOV / "checkov", "--version").strip()
    return Outcome(version, "checks", passed + len(failed), findings)


def ansible_lint() -> Outcome:
    """Check playbooks and roles against the profile `production`."""
    program = Path(sys.executable).with_name("ansible-lint")
    found = json.loads(tool(program, "-q", "--format", "codeclimate"))
    findings = [
        Finding(
            one["check_name"],
            one["location"]["path"],
            one["description"],
            one["location"].get("lines", {}).get("begin", 0),
        )
        for one in found
    ]
    files = tracked("*.yml")
    return Outcome(tool(program, "--version", "--nocolor").split()[1], "YAML files", len(files), findings)


def gixy() -> Outcome:
    """Check each kind of nginx.conf as it is rendered."""
    findings, texts = [], dict(rendered())
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            file = Path(folder, "nginx.conf")
            file.write_text(text)
            found = json.loads(tool(TOOLS / "gixy", "--format", "json", str(file)))
            findings += [
                Finding(one["plugin"], f"nginx.conf ({name})", one["reason"] or one["summary"], one["line"])
                for one in found
            ]
    version = tool(TOOLS / "gixy", "--version").split()[1].lstrip("v")
    return Outcome(version, "kinds of nginx.conf", len(texts), findings)


def detect_secrets() -> Outcome:
    """Look for secrets in the repository; the hashes of locked packages are none."""
    found = json.loads(tool(TOOLS / "detect-secrets", "scan", "--no-verify", "--exclude-lines", HASH))
    findings = [
        Finding(one["type"], file, "looks like a secret", one["line_number"])
        for file, secrets in found["results"].items()
        for one in secrets
    ]
    return Outcome(found["version"], "files", len(tracked()), findings)


def bills() -> Outcome:
    """Write a bill of materials for each image, in a process that refuses one that does not keep to the schema."""
    BILLS.mkdir(exist_ok=True)
    for old in BILLS.glob("*.cdx.json"):
        old.unlink()
    words = ["-m", "audit.sbom", str(PACKAGES), str(BILLS)]
    written = tool(TOOLS / "python", *words, fails_on_findings=False).splitlines()
    return Outcome("CycloneDX 1.6", f"images, in {relative(BILLS)}/", len(written))


def floors() -> Outcome:
    """Compare the packages of the images with the least versions."""
    lists = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(PACKAGES.glob("*.json"))]
    contents = {one["reference"]: one["packages"] for one in lists}
    known = [Floor(**entry) for entry in yaml.safe_load((ROOT / "audit/floors.yml").read_text(encoding="utf-8"))]
    total = sum(map(len, contents.values()))
    return Outcome(f"{len(known)} floors", "packages in images", total, list(below(known, contents)))


CHECKS: Mapping[str, Callable[[], Outcome]] = {
    "hadolint": hadolint,
    "checkov": checkov,
    "ansible-lint": ansible_lint,
    "gixy": gixy,
    "detect-secrets": detect_secrets,
    "sbom": bills,
    "floors": floors,
    "flipped hash": flipped_hash,
    "base twice": base_twice,
}
"""A further check is a function that gives an Outcome, and a line here."""


def main() -> int:
    """Run the checks that were asked for, and return exit status 0 when nothing has to be mended."""
    parser = argparse.ArgumentParser(prog="python -m audit", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; without any: all")
    chosen = parser.parse_args().checks or list(CHECKS)
    if unknown := set(chosen) - set(CHECKS):
        parser.error(f"no such check: {', '.join(sorted(unknown))}")
    reasons = [Reason(**one) for one in yaml.safe_load((ROOT / "audit/findings.yml").read_text(encoding="utf-8"))]
    rows, all_bad = [], []
    for name in chosen:
        outcome = CHECKS[name]()
        bad, stays = judge(name, outcome, reasons)
        looked_at = f"{outcome.count} {outcome.looked_at}"
        found = str(len(outcome.findings))
        rows.append((name, outcome.tool, looked_at, found, str(stays), "FAILED" if bad else "ok"))
        all_bad += [f"{name}: {one}" for one in bad]
    print(table(rows))
    print(
        "\nNo advisory service was asked: of holes that became known since, audit/floors.yml knows nothing by itself."
    )
    if all_bad:
        print("\nTo be mended, or given a reason in audit/findings.yml:", *all_bad, sep="\n- ")
    return 1 if all_bad else 0


if __name__ == "__main__":
    sys.exit(main())
