"""Estimates what the instances cost a month, as far as prices are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from preflight.variables import Variables, is_true
from roles.ec2.filter_plugins.ec2_plan import ec2_credit_mode

Prices = dict[str, Any]
"""Content of files/prices.yml, in US dollars."""


def read_prices(file: Path = Path(__file__).parents[1] / "files/prices.yml") -> Prices:
    """Read the prices."""
    prices: Prices = yaml_load(file.read_text(encoding="utf-8"))
    return prices


def hourly(prices: Prices, region: str, instance_type: str) -> float | None:
    """Give what a running instance costs without its address, in US dollars an hour; None where no price is kept."""
    price: float | None = prices["instances"]["prices"].get(region, {}).get(instance_type)
    return price


def with_price(prices: Prices, region: str, instance_type: str) -> str:
    """Name an instance type, with its price a month where that is kept."""
    price = hourly(prices, region, instance_type)
    return instance_type if price is None else f"{instance_type} ({price * prices['hours_per_month']:.2f} USD a month)"


def parts(variables: Variables, prices: Prices) -> Iterator[tuple[str, str, float]]:
    """List what costs money: the entry of the prices, which there has to be, what it is, and US dollars a month."""
    count, size = int(variables["ec2_count"]), int(variables["ec2_volume_size"])
    region, name, hours = variables["ec2_region"], variables["ec2_instance_type"], prices["hours_per_month"]
    of_instance, of_disk = prices["instances"]["prices"][region][name], prices["volumes"]["prices"][region]
    yield "instances", f"{count} x {name}", count * of_instance * hours
    yield "volumes", f"{count} x {size} GB gp3", count * size * of_disk
    yield "address", f"{count} public IPv4", count * prices["address"]["price"] * hours
    if is_true(variables.get("ec2_detailed_monitoring")):
        yield "monitoring", "detailed monitoring", count * prices["monitoring"]["price"]
    if variables.get("ec2_dns_zone"):
        yield "zone", "hosted zone", prices["zone"]["price"]


def extras(variables: Variables, prices: Prices) -> Iterator[tuple[str, str]]:
    """List what comes on top and depends on use: the entry of the prices, and what it is."""
    traffic = prices["traffic"]
    yield "traffic", f"{traffic['price']:.2f} per GB sent to the internet beyond {traffic['free_gb']} GB a month"
    if ec2_credit_mode(variables["ec2_instance_type"], variables.get("ec2_credits") or "") == "unlimited":
        price = prices["surplus"]["price"]
        yield "surplus", f"{price:.2f} per vCPU-hour above the type's baseline (ec2_credits is unlimited)"
    yield "snapshot", f"{prices['snapshot']['price']:.2f} per GB and month for the snapshots that destroy keeps"


def estimate(variables: Variables, prices: Prices) -> str:
    """Estimate the monthly cost in a few lines."""
    region, name = variables["ec2_region"], variables["ec2_instance_type"]
    if hourly(prices, region, name) is None:
        return f"Cost: files/prices.yml keeps no price for {name} in {region}; see aws.amazon.com/ec2/pricing/on-demand"
    if region not in prices["volumes"]["prices"]:
        return (
            f"Cost: {variables['ec2_count']} x {with_price(prices, region, name)} and more: files/prices.yml keeps no "
            f"price of disks in {region}; see aws.amazon.com/ebs/pricing"
        )
    listed, more = list(parts(variables, prices)), list(extras(variables, prices))
    dates = [str(prices[entry]["date"]) for entry in [*(one[0] for one in listed), *(one[0] for one in more)]]
    return (
        f"Cost: about {sum(price for *_, price in listed):.2f} USD a month "
        f"({', '.join(f'{what} {price:.2f}' for _, what, price in listed)})\n"
        f"  on top: {'; '.join(what for _, what in more)}; taxes\n"
        f"  prices of {min(dates)} to {max(dates)}, without free tier: files/prices.yml"
    )
