"""A subnet is free of everything that the host knows."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CorralError
from corral.network.subnets import choose_subnet


def test_an_empty_host_gets_the_first() -> None:
    assert choose_subnet(()) == "192.168.144.0/24"


def test_what_overlaps_in_either_direction_is_left_out() -> None:
    assert choose_subnet(("192.168.144.7/32", "192.168.145.0/25")) == "192.168.146.0/24"
    assert choose_subnet(("192.168.0.0/16",)) == "172.16.0.0/24"


def test_default_routes_other_families_and_noise_count_for_nothing() -> None:
    assert choose_subnet(("0.0.0.0/0", "fd00::/8", "default", "")) == "192.168.144.0/24"


def test_none_left() -> None:
    with pytest.raises(CorralError) as error:
        choose_subnet(("192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/8"))
    assert error.value.code == "no-free-subnet"


@pytest.mark.parametrize("wanted", ["8.8.8.0/24", "192.168.1.5/24", "10.0.0.0/8", "10.0.0.0/30", "x"])
def test_a_wish_that_cannot_be(wanted: str) -> None:
    with pytest.raises(CorralError) as error:
        choose_subnet((), wanted)
    assert error.value.code == "invalid-argument"


def test_a_wish_is_granted_or_refused_with_what_is_in_the_way() -> None:
    assert choose_subnet(("10.1.0.0/16",), "10.2.0.0/24") == "10.2.0.0/24"
    with pytest.raises(CorralError) as error:
        choose_subnet(("10.1.0.0/16",), "10.1.2.0/24")
    assert (error.value.code, "10.1.0.0/16" in error.value.reason) == ("no-free-subnet", True)


@given(
    st.lists(st.builds(lambda a, p: f"{ipaddress.IPv4Address(a)}/{p}", st.integers(0, 2**32 - 1), st.integers(12, 32)))
)
def test_the_choice_never_overlaps(used: list[str]) -> None:
    chosen = ipaddress.ip_network(choose_subnet(used))
    assert not any(chosen.overlaps(ipaddress.ip_network(text, strict=False)) for text in used)
