"""What the kernel's word wakes whom for, in a network namespace where nobody else changes anything."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from namespaces import ip, within

from corral.network.events import SETTLE_S, kernel_events
from corral.network.router_host_routes import PROTOCOL

OURS, OURS6, OTHERS = "10.7.1.0/24", "fd07:1::/64", "10.7.2.0/24"


@pytest.fixture
def host() -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:10]}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        for family, to, made_by in (("-4", OURS, PROTOCOL), ("-6", OURS6, PROTOCOL), ("-4", OTHERS, "bird")):
            ip(family, "-n", name, "route", "add", to, "dev", "lo", "proto", made_by)
        yield name
    finally:
        ip("netns", "del", name)


@pytest.mark.parametrize(
    ("change", "is_news"),
    [
        (f"del {OURS}", True),
        (f"-6 del {OURS6}", True),
        (f"replace unreachable {OURS}", True),
        ("flush all", True),
        (f"del {OTHERS}", False),
        (f"replace unreachable {OTHERS} proto bird", False),
        ("add 10.7.3.0/24 dev lo", False),
    ],
)
def test_a_route_of_ours_that_is_lost_is_told_of_and_others_are_not(host: str, change: str, is_news: bool) -> None:
    family = ["-6"] if change.startswith("-6 ") else []

    async def heard() -> bool:
        events = kernel_events()
        listening = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        ip(*family, "-n", host, "route", *change.removeprefix("-6 ").split())
        done, _ = await asyncio.wait({listening}, timeout=5 if is_news else 5 * SETTLE_S)
        listening.cancel()
        await asyncio.wait({listening})
        await events.aclose()
        return bool(done)

    assert within(host, lambda: asyncio.run(heard())) is is_news
