"""What the instances cost a month, as far as prices are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from preflight.variables import Variables, is_true


def read_prices(file: Path) -> dict[str, Any]:
    """Read the prices.

    Args:
        file: Such as files/prices.yml.

    Returns:
        Its content, in US dollars.
    """
    prices: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return prices


def parts(variables: Variables, prices: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """List what costs money.

    Args:
        variables: Values by name, already checked one by one.
        prices: As ``read_prices`` gives them; the region and the type are among them.

    Yields:
        What it is, and US dollars a month.
    """
    count, size = int(variables["ec2_count"]), int(variables["ec2_volume_size"])
    region, name, hours = variables["ec2_region"], variables["ec2_instance_type"], prices["hours_per_month"]
    hourly, of_disk = prices["instances"]["prices"][region][name], prices["volumes"]["prices"][region]
    yield f"{count} x {name} {count * hourly * hours:.2f}", count * hourly * hours
    yield f"{count} x {size} GB gp3 {count * size * of_disk:.2f}", count * size * of_disk
    address = count * prices["address"]["price"] * hours
    yield f"{count} public IPv4 {address:.2f}", address
    if is_true(variables.get("ec2_detailed_monitoring")):
        monitoring = count * prices["monitoring"]["price"]
        yield f"detailed monitoring {monitoring:.2f}", monitoring
    if variables.get("ec2_dns_zone"):
        yield f"hosted zone {prices['zone']['price']:.2f}", prices["zone"]["price"]


def estimate(variables: Variables, prices: dict[str, Any]) -> str:
    """Estimate the monthly cost.

    Args:
        variables: Values by name, already checked one by one.
        prices: As ``read_prices`` gives them.

    Returns:
        One or two lines.
    """
    region, name = variables["ec2_region"], variables["ec2_instance_type"]
    if name not in prices["instances"]["prices"].get(region, {}) or region not in prices["volumes"]["prices"]:
        return f"Cost: files/prices.yml keeps no price for {name} in {region}; see aws.amazon.com/ec2/pricing/on-demand"
    listed = list(parts(variables, prices))
    dates = [str(entry["date"]) for entry in prices.values() if isinstance(entry, dict)]
    more = "traffic and taxes come on top"
    if variables.get("ec2_credits") == "unlimited":
        more = f"{prices['surplus']['price']:.2f} per vCPU-hour above the baseline (ec2_credits), {more}"
    return (
        f"Cost: about {sum(price for _, price in listed):.2f} USD a month ({', '.join(label for label, _ in listed)}); "
        f"{more}\n  prices of {min(dates)} to {max(dates)}, without free tier: files/prices.yml"
    )
