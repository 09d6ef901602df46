"""What the instances' network inherits from this machine's."""

from pathlib import Path

import pytest

from rehearsal import network
from rehearsal.errors import RehearsalError


@pytest.mark.parametrize("cidr", ["10.71.0.0/17", "10.71.0.1/16", "8.8.0.0/16", "fd00::/16", "nonsense"])
def test_networks_that_cannot_be_a_default_vpc_are_refused(cidr: str) -> None:
    with pytest.raises(RehearsalError, match=r"--network .*private /16"):
        network.parse_network(cidr)


def test_elastic_ips_are_in_the_network_but_in_no_default_subnet() -> None:
    """The subnets of the six zones of a large region end at .95.255."""
    pool = network.elastic_pool(network.parse_network("10.71.0.0/16"))
    assert (pool[0], pool[-1], len(pool)) == ("10.71.255.1", "10.71.255.254", 254)


def test_real_name_servers_are_found_behind_a_local_stub(tmp_path: Path) -> None:
    """A loopback resolver of this machine does not exist inside an instance."""
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\nnameserver ::1\nnameserver fe80::1%eth0\n", encoding="utf-8")
    real.write_text("search example.org\nnameserver 192.0.2.53\n", encoding="utf-8")
    assert network.resolv_conf((stub, real)) == "search example.org\nnameserver 192.0.2.53\n"
    assert network.resolv_conf((stub, tmp_path / "missing")) is None


def test_mtu_is_that_of_the_default_route(tmp_path: Path) -> None:
    """With a larger one, downloads inside an instance stall behind a tunnel."""
    routes = tmp_path / "route"
    routes.write_text("Iface\tDestination\nbr0\t0000470A\neth7\t00000000\n", encoding="ascii")
    (tmp_path / "eth7").mkdir()
    (tmp_path / "eth7" / "mtu").write_text("1400\n", encoding="ascii")
    assert network.default_mtu(routes, tmp_path) == 1400
    routes.write_text("Iface\tDestination\n", encoding="ascii")
    assert network.default_mtu(routes, tmp_path) == network.FALLBACK_MTU
