"""Builds images to see that equal packages make equal bytes, and that a package of other bytes makes none."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

from audit.report import Finding, Outcome
from bench.app import copy_app, services
from bench.playbook import Outcome as Run

REPOSITORY = "flask-fleet-audit/base"
LOCAL = ("--inventory", "inventories/local")


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def base_twice() -> Outcome:
    """Bootstrap the base image twice, under a name of its own, and find whether the bytes differ.

    Raises:
        RuntimeError: The base was not bootstrapped.
    """
    layers = []
    for revision in ("one", "two"):
        run = Run(["ansible-playbook", "audit/base.yml", *LOCAL, "--extra-vars", f"image_base_revision={revision}"])
        images = _docker("images", "--quiet", "--filter", f"reference={REPOSITORY}").split()
        if not run.ok or len(images) != 1:
            raise RuntimeError(run.said)
        layers.append(_docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", *images))
        _docker("rmi", *images)
    differing = [Finding("bytes", "base", f"two builds differ: {', '.join(layers)}")] if len(set(layers)) > 1 else []
    return Outcome("mmdebstrap", "builds of the base, byte by byte", len(layers), differing)


def flipped_hash() -> Outcome:
    """Build the sample app with every hash of its requirements wrong by a digit, and find whether an image was made."""
    with tempfile.TemporaryDirectory() as folder:
        app = copy_app(Path(folder))
        lock = app / "requirements.txt"
        text, flipped = re.subn(
            r"(sha256:)([0-9a-f])", lambda hash_: hash_[1] + f"{int(hash_[2], 16) ^ 1:x}", lock.read_text()
        )
        lock.write_text(text)
        given = json.dumps({"stack_services": services(app), "image_packages_folder": folder})
        run = Run(["ansible-playbook", "playbooks/packages.yml", *LOCAL, "--extra-vars", given])
    refused = not run.ok and "DO NOT MATCH THE HASHES" in run.said
    findings = (
        [] if refused else [Finding("hash", "app", f"the image was made, or failed otherwise: {run.said[-500:]}")]
    )
    return Outcome("pip", "flipped hashes, refused by the build", flipped, findings)
