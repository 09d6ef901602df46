"""Writes a software bill of materials for each image, from the lists of playbooks/packages.yml.

Runs in the environment of audit/tools.txt, which has the library: python -m audit.sbom LISTS TARGET
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL


def component(package: Mapping[str, str]) -> Component:
    """Describe a package, with its package URL.

    ``package`` has ``kind``, ``name`` and ``version``, and for one of Debian's also ``architecture``.
    """
    name, version = package["name"], package["version"]
    if package["kind"] == "deb":
        purl = PackageURL("deb", "debian", name, version, {"arch": package["architecture"]})
    else:
        purl = PackageURL("pypi", None, name, version)
    return Component(name=name, version=version, purl=purl, bom_ref=purl.to_string())


def bill(image: Mapping[str, Any]) -> str:
    """Describe an image as CycloneDX 1.6 in JSON, the same for the same image.

    ``image`` has ``reference``, ``id``, ``created`` and ``packages``.

    Raises:
        ValueError: The bill does not keep to the schema.
    """
    name, _, tag = image["reference"].rpartition(":")
    whole = Component(type=ComponentType.CONTAINER, name=name, version=tag, bom_ref=image["reference"])
    # Python 3.11 reads at most microseconds.
    created = datetime.fromisoformat(image["created"].rstrip("Z").partition(".")[0]).replace(tzinfo=UTC)
    packages = {purl.bom_ref.value: purl for purl in map(component, image["packages"])}
    bom = Bom(
        metadata=BomMetaData(component=whole, timestamp=created),
        components=packages.values(),
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, image["id"]),
    )
    bom.register_dependency(whole, packages.values())
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error:
        raise ValueError(f"{image['reference']}: {error}")
    return text


def main() -> None:
    """Write all of them, and print how many components each has."""
    lists, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(lists.glob("*.json")):
        text = bill(json.loads(file.read_text(encoding="utf-8")))
        (target / f"{file.stem}.cdx.json").write_text(f"{text}\n", encoding="utf-8")
        print(f"{file.stem} {len(json.loads(text)['components'])}")


if __name__ == "__main__":
    main()
