"""The estimate of the cost agrees with sums made by hand."""

import itertools
from typing import Any

import pytest

from preflight import cost
from tests.project import ROOT

PRICES = cost.read_prices(ROOT / "files/prices.yml")


def machines(**changes: Any) -> dict[str, Any]:
    """Describe one t2.micro in Frankfurt, except for the changes."""
    one = {"ec2_count": 1, "ec2_instance_type": "t2.micro", "ec2_region": "eu-central-1", "ec2_volume_size": 10}
    return one | {"ec2_credits": "", "ec2_detailed_monitoring": False, "ec2_dns_zone": ""} | changes


@pytest.mark.parametrize(
    ("changes", "total"),
    [
        # 0.0134 x 730 = 9.782; 10 x 0.0952 = 0.952; 0.005 x 730 = 3.65
        ({}, 14.384),
        # 2 x 0.0464 x 730 = 67.744; 2 x 20 x 0.08 = 3.2; 2 x 0.005 x 730 = 7.3; 2 x 2.1 = 4.2; one zone 0.5
        (
            {
                "ec2_count": "2",
                "ec2_detailed_monitoring": "yes",
                "ec2_dns_zone": "example.org",
                "ec2_instance_type": "t2.medium",
                "ec2_region": "us-east-1",
                "ec2_volume_size": "20",
            },
            82.944,
        ),
        # 0.012 x 730 = 8.76; 0.952; 3.65
        ({"ec2_instance_type": "t3.micro"}, 13.362),
        # 0.05 x 730 = 36.5; 8 x 0.088 = 0.704; 3.65
        ({"ec2_instance_type": "t2.medium", "ec2_region": "eu-west-1", "ec2_volume_size": 8}, 40.854),
    ],
)
def test_sum_is_right(changes: dict[str, Any], total: float) -> None:
    """Numbers from -e are text, and everything but the zone counts once for each instance."""
    variables = machines(**changes)
    assert sum(price for *_, price in cost.parts(variables, PRICES)) == pytest.approx(total)
    assert f"Cost: about {total:.2f} USD a month (" in cost.estimate(variables, PRICES)


def test_parts_and_dates_are_shown() -> None:
    assert cost.estimate(machines(), PRICES) == (
        "Cost: about 14.38 USD a month (1 x t2.micro 9.78, 1 x 10 GB gp3 0.95, 1 public IPv4 3.65)\n"
        "  on top: 0.09 per GB sent to the internet beyond 100 GB a month; "
        "0.05 per GB and month for the snapshots that destroy keeps; taxes\n"
        "  prices of 2017-12-31 to 2026-02-09, without free tier: files/prices.yml"
    )


SURPLUS = "0.05 per vCPU-hour above the type's baseline (ec2_credits is unlimited)"


@pytest.mark.parametrize(
    ("changes", "is_said"),
    [
        ({"ec2_instance_type": "t3.micro"}, True),
        ({"ec2_instance_type": "t3a.micro"}, True),
        ({"ec2_instance_type": "t3.micro", "ec2_credits": "standard"}, False),
        ({}, False),
        ({"ec2_credits": "unlimited"}, True),
        ({"ec2_region": "us-east-1", "ec2_instance_type": "c7i-flex.large", "ec2_credits": "unlimited"}, False),
    ],
    ids=str,
)
def test_unlimited_credits_are_mentioned_where_they_are_used(changes: dict[str, Any], is_said: bool) -> None:
    """Nobody knows in advance how many there will be, and a t3 uses them unless told otherwise."""
    assert (SURPLUS in cost.estimate(machines(**changes), PRICES)) is is_said


SIZES = ("nano", "micro", "small", "medium", "large", "xlarge", "2xlarge")


@pytest.mark.parametrize(
    ("region", "family"),
    [
        *itertools.product(["eu-central-1", "eu-west-1", "us-east-1"], ["t2", "t3", "t3a"]),
        *((region, "t3") for region in PRICES["instances"]["prices"]),
    ],
)
def test_every_size_has_a_price(region: str, family: str) -> None:
    """Each size costs about twice the one before, so a typing error would show."""
    kept = PRICES["instances"]["prices"][region]
    prices = [kept[f"{family}.{size}"] for size in SIZES]
    assert [after / before for before, after in itertools.pairwise(prices)] == pytest.approx([2] * 6, rel=0.02)
    assert cost.with_price(PRICES, region, f"{family}.nano") == f"{family}.nano ({prices[0] * 730:.2f} USD a month)"
    assert cost.with_price(PRICES, region, "m7i.large") == "m7i.large"


@pytest.mark.parametrize("changes", [{"ec2_region": "eu-west-3"}, {"ec2_instance_type": "m7i.large"}])
def test_price_that_is_not_kept_is_not_guessed(changes: dict[str, Any]) -> None:
    said = cost.estimate(machines(**changes), PRICES)
    assert said.startswith("Cost: files/prices.yml keeps no price for ")
    assert "USD" not in said


def test_price_of_the_instances_is_said_where_that_of_disks_is_not_kept() -> None:
    assert cost.estimate(machines(ec2_region="eu-north-1", ec2_instance_type="t3.micro"), PRICES) == (
        "Cost: 1 x t3.micro (7.88 USD a month) and more: files/prices.yml keeps no price of disks in eu-north-1; see "
        "aws.amazon.com/ebs/pricing"
    )


def test_every_price_has_a_date_and_a_source() -> None:
    entries = [entry for entry in PRICES.values() if isinstance(entry, dict)]
    assert len(entries) == len(PRICES) - 1
    assert all(entry["date"] and entry["source"] for entry in entries)
