"""Things that exist already are listed with their cost."""

from typing import Any

import pytest

from preflight.cost import read_prices
from preflight.existing import described
from tests.project import ROOT

PRICES = read_prices(ROOT / "files/prices.yml")
REGION = "eu-central-1"


def piece(name: str, about: str = "", **raw: Any) -> dict[str, Any]:
    return {"id": name, "about": about, "raw": raw}


def instance(state: str, instance_type: str = "t2.micro") -> dict[str, Any]:
    return piece("i-1", f"{instance_type}, {state}", State={"Name": state}, InstanceType=instance_type)


def test_each_thing_has_its_price_and_all_have_a_sum() -> None:
    resources = {
        "instance": [instance("running")],
        "volume": [piece("vol-1", Size=10)],
        "address": [piece("192.0.2.1")],
        "key pair": [piece("mine")],
        "snapshot": [piece("snap-1", VolumeSize=10)],
    }
    kept = PRICES["snapshot"]["price"] * 10
    hours = PRICES["hours_per_month"]
    compute = PRICES["instances"]["prices"][REGION]["t2.micro"] * hours
    disk, address = PRICES["volumes"]["prices"][REGION] * 10, PRICES["address"]["price"] * hours
    assert list(described(resources, REGION, PRICES)) == [
        f"  instance i-1, t2.micro, running: about {compute:.2f} USD a month",
        f"  volume vol-1: about {disk:.2f} USD a month",
        f"  address 192.0.2.1: about {address:.2f} USD a month",
        "  key pair mine: free",
        f"  snapshot snap-1: at most {kept:.2f} USD a month",
        f"Together about {compute + disk + address + kept:.2f} USD a month.",
    ]


def test_public_address_costs_whether_elastic_or_not() -> None:
    """AWS has charged for both since 2024."""
    running = instance("running")
    running["raw"]["PublicIpAddress"] = "192.0.2.1"
    alone = list(described({"instance": [running]}, REGION, PRICES))
    elastic = list(described({"instance": [running], "address": [piece("192.0.2.1")]}, REGION, PRICES))
    assert alone[-1] == elastic[-1]
    assert alone[0] != elastic[0]


@pytest.mark.parametrize("state", ["stopping", "stopped", "shutting-down"])
def test_instance_that_does_not_run_is_free(state: str) -> None:
    assert next(described({"instance": [instance(state)]}, REGION, PRICES)).endswith(": free")


def test_unknown_price_is_said() -> None:
    lines = list(described({"instance": [instance("running", "x9.huge")]}, REGION, PRICES))
    assert lines == [
        "  instance i-1, x9.huge, running: no price is kept",
        "Together about 0.00 USD a month, and what has no price here.",
    ]
