"""Says what exists of the project in the account, and what it costs a month."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from preflight.cost import Prices, hourly

Resources = Mapping[str, list[dict[str, Any]]]
"""Things by kind, as the module ``tagged_resources_info`` lists them."""

FREE = 0.0


def price(
    kind: str, raw: Mapping[str, Any], region: str, prices: Prices, elastic: Collection[str] = ()
) -> float | None:
    """Look up what a thing costs, in US dollars a month; None when no price is kept.

    ``elastic`` are Elastic IPs, which are things of their own; any other public address is part of its instance.
    """
    match kind:
        case "instance" if raw["State"]["Name"] in {"pending", "running"}:
            of_instance = hourly(prices, region, raw["InstanceType"])
            has_address = raw.get("PublicIpAddress", "") not in {"", *elastic}
            of_address = prices["address"]["price"] if has_address else FREE
            return None if of_instance is None else float((of_instance + of_address) * prices["hours_per_month"])
        case "volume":
            of_disk = prices["volumes"]["prices"].get(region)
            return None if of_disk is None else float(of_disk * raw["Size"])
        case "address":
            return float(prices["address"]["price"] * prices["hours_per_month"])
        case "snapshot":
            return float(prices["snapshot"]["price"] * raw["VolumeSize"])
    return FREE


def described(resources: Resources, region: str, prices: Prices) -> Iterator[str]:
    """Describe what there is, thing by thing, and what all of it costs."""
    total, unknown = FREE, False
    elastic = {one["id"] for one in resources.get("address", [])}
    for kind, things in resources.items():
        for one in things:
            cost = price(kind, one["raw"], region, prices, elastic)
            total, unknown = total + (cost or FREE), unknown or cost is None
            # AWS charges for what is stored of a snapshot only.
            about = "at most" if kind == "snapshot" else "about"
            shown = "no price is kept" if cost is None else f"{about} {cost:.2f} USD a month" if cost else "free"
            yield f"  {kind} {one['id']}{', ' + one['about'] if one['about'] else ''}: {shown}"
    yield f"Together about {total:.2f} USD a month{', and what has no price here' if unknown else ''}."
