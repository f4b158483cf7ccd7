"""IPv6: subnets that are free, and addresses that follow from what is unique already."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CorralError
from corral.model.network import NetworkSpec
from corral.network import ipam
from corral.network.addresses import address6_of, eui64, link_local
from corral.network.subnets import choose_subnet, choose_subnet6

DHCP = NetworkSpec(subnet="10.20.0.0/16", bridge="b", subnet6="fd00:1::/64", ipv6="dhcp")
SLAAC = DHCP.model_copy(update={"ipv6": "slaac"})
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: ":".join(f"{byte:02x}" for byte in raw))
NUMBERS = st.integers(0, ipam.address_count(DHCP.subnet) - 1)


def test_an_address_of_a_mac_as_rfc_4291_has_it() -> None:
    assert eui64("2001:db8:1:2::/64", "34:56:78:9a:bc:de") == "2001:db8:1:2:3656:78ff:fe9a:bcde"
    assert link_local("52:54:00:12:34:56") == "fe80::5054:ff:fe12:3456"


@given(NUMBERS, NUMBERS, MACS)
def test_two_ipv4_addresses_never_have_one_ipv6_address(one: int, other: int, mac: str) -> None:
    first, second = (address6_of(DHCP, ipam.address_at(DHCP.subnet, number), mac) for number in (one, other))
    assert (first == second) is (one == other)
    assert ipaddress.ip_address(first) in ipaddress.ip_network(DHCP.subnet6)
    assert first != DHCP.gateway6


@given(MACS, MACS, NUMBERS)
def test_two_macs_never_have_one_ipv6_address(one: str, other: str, number: int) -> None:
    address = ipam.address_at(DHCP.subnet, number)
    assert (address6_of(SLAAC, address, one) == address6_of(SLAAC, address, other)) is (one == other)


def test_there_is_none_where_the_network_has_none() -> None:
    assert address6_of(DHCP.model_copy(update={"subnet6": "", "ipv6": ""}), "10.20.0.9", "52:54:00:00:00:01") == ""
    assert address6_of(NetworkSpec(mode="bridge", bridge="br0"), "", "52:54:00:00:00:01") == ""


def test_a_wish_is_granted_or_refused_with_who_is_in_the_way() -> None:
    used = {"fd00:1::/48": "the host's route through wg0", "10.1.0.0/16": "network 'lab'"}
    assert choose_subnet6(used, "fd00:2::/64") == "fd00:2::/64"
    for choose, wanted, said in (
        (choose_subnet6, "fd00:1:0:5::/64", "fd00:1::/48 is in use: the host's route through wg0"),
        (choose_subnet, "10.1.2.0/24", "10.1.0.0/16 is in use: network 'lab'"),
    ):
        with pytest.raises(CorralError) as error:
            choose(used, wanted)
        assert (error.value.code, error.value.reason) == ("no-free-subnet", said)


@pytest.mark.parametrize(
    "wanted", ["fe80::/64", "ff00::/64", "::1/128", "fd00::/48", "fd00::1/64", "::/64", "10.0.0.0/24", "x"]
)
def test_subnets_that_guests_cannot_have(wanted: str) -> None:
    with pytest.raises(CorralError) as error:
        choose_subnet6((), wanted)
    assert error.value.code == "invalid-argument"


def test_one_drawn_by_lot_is_unique_local_and_another_each_time() -> None:
    drawn = {choose_subnet6(()) for _ in range(20)}
    assert len(drawn) == 20
    assert all(ipaddress.IPv6Network(one).subnet_of(ipaddress.IPv6Network("fd00::/8")) for one in drawn)
    assert all(ipaddress.IPv6Network(one).prefixlen == 64 for one in drawn)
