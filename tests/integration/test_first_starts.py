"""Two daemons that start for the first time in the same instant: each has a network of its own, and it is up."""

import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from walk import Walk, make_walk


@pytest.fixture
def newcomers() -> Iterator[tuple[Walk, ...]]:
    walks = tuple(make_walk() for _ in range(2))
    try:
        yield walks
    finally:
        for walk in walks:
            walk.clear()


@pytest.mark.timeout(300)
def test_they_choose_subnets_one_after_the_other(newcomers: tuple[Walk, ...]) -> None:
    with ThreadPoolExecutor(len(newcomers)) as pool:
        for started in pool.map(lambda walk: walk("daemon", "start"), newcomers):
            started.ok()
    networks = [walk.json("network", "show", "default") for walk in newcomers]
    one, other = (ipaddress.ip_network(network["spec"]["subnet"]) for network in networks)
    assert not one.overlaps(other)
    for network in networks:
        conditions = {found["type"]: found for found in network["status"]["conditions"]}
        assert conditions["Ready"]["status"] == "true", conditions
