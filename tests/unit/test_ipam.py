"""Addresses: each once, freed ones late, bounds exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import CorralError
from corral.network import ipam


def test_guests_get_all_but_network_gateway_and_broadcast() -> None:
    assert ipam.address_count("192.168.150.0/24") == 253
    assert ipam.address_at("192.168.150.0/24", 0) == "192.168.150.2"
    assert ipam.address_at("192.168.150.0/24", 252) == "192.168.150.254"


@pytest.mark.parametrize("subnet", ["10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/32"])
def test_tiny_subnets_have_no_surplus(subnet: str) -> None:
    assert ipam.address_count(subnet) == (1 if subnet.endswith("30") else 0)


@given(st.integers(0, 252))
def test_number_and_address_are_inverse(number: int) -> None:
    assert ipam.number_of("10.1.2.0/24", ipam.address_at("10.1.2.0/24", number)) == number


@pytest.mark.parametrize("address", ["10.1.2.0", "10.1.2.1", "10.1.2.255", "10.1.3.2", "::1", "", "x", "10.1.2.2/24"])
def test_addresses_that_guests_cannot_have_are_refused(address: str) -> None:
    assert ipam.number_of("10.1.2.0/24", address) is None
    with pytest.raises(CorralError, match="invalid-argument"):
        ipam.parse_address("10.1.2.0/24", address)


def test_a_pool_gives_each_number_once_and_then_says_so() -> None:
    pool = ipam.NumberPool(ipam.address_count("10.0.0.0/29"))
    given_out = [ipam.hold_address(pool, "10.0.0.0/29", "n") for _ in range(5)]
    assert sorted(given_out) == [0, 1, 2, 3, 4]
    with pytest.raises(CorralError, match="no-free-address"):
        ipam.hold_address(pool, "10.0.0.0/29", "n")


def test_a_freed_number_is_given_again_last() -> None:
    pool = ipam.NumberPool(4)
    first = pool.hold_next()
    assert first == 0
    pool.held.discard(0)
    assert [pool.hold_next() for _ in range(4)] == [1, 2, 3, 0]
    assert pool.hold_next() is None


def test_a_number_asked_for_is_held_once() -> None:
    pool = ipam.NumberPool(4)
    pool.taken.add(2)
    assert not pool.hold(2)
    assert pool.hold(3)
    assert not pool.hold(3)


@given(st.sets(st.integers(0, 63)), st.integers(0, 63))
def test_what_is_taken_is_never_given(taken: set[int], start: int) -> None:
    pool = ipam.NumberPool(64, start)
    pool.taken = set(taken)
    given_out = set()
    while (number := pool.hold_next()) is not None:
        assert number not in taken
        given_out.add(number)
    assert given_out | taken == set(range(64))


@given(st.sets(st.integers(0, 61)), st.integers(0, 61), st.integers(0, 61))
def test_only_numbers_of_the_range_are_given_unasked(taken: set[int], first: int, last: int) -> None:
    pool = ipam.NumberPool(62, given_out=range(first, last + 1))
    pool.taken = set(taken)
    given_out = []
    while (number := pool.hold_next()) is not None:
        given_out.append(number)
    assert sorted(given_out) == sorted(set(range(first, last + 1)) - taken)


@given(st.lists(st.sampled_from(["next", "ask", "free", "narrow"]), max_size=60), st.data())
def test_no_number_is_ever_anybodys_twice(steps: list[str], data: st.DataObject) -> None:
    """Whatever is asked for, given back, or set anew in between."""
    pool, owned = ipam.NumberPool(8), set[int]()
    for step in steps:
        if step == "next" and (number := pool.hold_next()) is not None:
            assert number not in owned
            assert number in pool.given_out
            owned.add(number)
        elif step == "ask":
            wanted = data.draw(st.integers(0, 7))
            assert pool.hold(wanted) is (wanted not in owned)
            owned.add(wanted)
        elif step == "free" and owned:
            gone = data.draw(st.sampled_from(sorted(owned)))
            owned.discard(gone)
            pool.held.discard(gone)
        elif step == "narrow":
            first = data.draw(st.integers(0, 7))
            pool.given_out = range(first, data.draw(st.integers(first, 7)) + 1)


def test_a_range_of_a_subnet() -> None:
    assert ipam.given_out("10.0.0.0/24", "", "") == range(253)
    assert ipam.given_out("10.0.0.0/24", "10.0.0.100", "10.0.0.199") == range(98, 198)
    with pytest.raises(CorralError, match="invalid-argument"):
        ipam.given_out("10.0.0.0/24", "10.0.1.5", "")
