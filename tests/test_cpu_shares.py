"""nginx has the same multiple of a replica's CPU weight on cgroup v1 and v2, whichever runc converts it."""

import pytest

from plugins.filter.cpu_shares import cpu_shares, on_a_curve, on_a_line

DEBIAN_13 = "1.1.15+ds1-2+deb13u1"
OLD = [DEBIAN_13, "1.1.5+ds1-1+deb12u1", "v1.2.5-0-g59923ef", "v1.3.1-0-ge6457afc"]
NEW = ["1.3.2", "v1.3.3-0-gd842d771", "v1.4.0-0-g8bd78a99", "1.10.0", "N/A", ""]


@pytest.mark.parametrize(
    ("shares", "old", "new"), [(2, 1, 1), (2000, 77, 170), (22000, 840, 1204), (262144, 10000, 10000), (1024, 39, 100)]
)
def test_conversions_are_those_of_runc(shares: int, old: int, new: int) -> None:
    """The figures come from runc's issues 4772 and 4896, its tests, and youki's pull request 3274."""
    assert (on_a_line(shares), on_a_curve(shares)) == (old, new)


def test_the_same_number_would_not_do() -> None:
    """With cgroup v2, 4096 meant 1.57 times a replica's 100 on Debian 13, and not 4 times."""
    assert (on_a_line(4096), on_a_curve(4096)) == (157, 303)


@pytest.mark.parametrize("runc", OLD + NEW)
@pytest.mark.parametrize("times", [2, 4])
def test_the_multiple_is_exact_on_both(runc: str, times: int) -> None:
    """The default is 1024 shares on v1 and a weight of 100 on v2."""
    assert cpu_shares(times, {"CgroupVersion": "1", "RuncCommit": {"ID": runc}}) / 1024 == times
    convert = on_a_line if runc in OLD else on_a_curve
    assert convert(cpu_shares(times, {"CgroupVersion": "2", "RuncCommit": {"ID": runc}})) / 100 == times
