"""Limits and promises in the real kernel: what passes a device is queued in its class, both ways."""

import asyncio
import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from wires import Wires, eventually, inside, ip, reaches

from corral import proc
from corral.model.bandwidth import Bandwidth
from corral.names import ifb_name
from corral.network.shaper import TcShaper, observe
from corral.network.shaping import Queue, Shape, Share

pytestmark = pytest.mark.timeout(120)
SLOW = Bandwidth(average_bytes_per_s=200_000)


@pytest.fixture
def wires() -> Iterator[Wires]:
    found = Wires()
    try:
        yield found
    finally:
        found.close()


def classes(device: str) -> dict[str, int]:
    """Packets sent, by class; this tc has no JSON for them."""
    argv = ["tc", "-s", "class", "show", "dev", device]
    text = subprocess.run(argv, check=True, capture_output=True, timeout=10, text=True).stdout
    return {
        name: int(packets) for name, packets in re.findall(r"class htb (\S+) [^\n]*\n Sent \d+ bytes (\d+) pkt", text)
    }


def overlimits(device: str) -> int:
    """How often something had to wait."""
    text = subprocess.run(
        ["tc", "-j", "-s", "qdisc", "show", "dev", device], check=True, capture_output=True, timeout=10
    ).stdout
    return sum(each["overlimits"] for each in json.loads(text) if each["kind"] == "htb")


def mac(namespace: str) -> str:
    return str(json.loads(inside(namespace, "ip", "-j", "link", "show", "eth0", check=True).stdout)[0]["address"])


def flood(namespace: str, address: str) -> None:
    """Four times as much as a second's worth, at once."""
    script = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n"
        "for _ in range(600):\n"
        "    s.sendto(b'x'*1400,(sys.argv[1],9))\n"
    )
    inside(namespace, "python3", "-c", script, address, check=True)


def test_a_card_is_slowed_down_both_ways_live_and_let_go(wires: Wires) -> None:
    bridge = wires.bridge()
    one, other = wires.host(bridge, "10.243.0.1/24"), wires.host(bridge, "10.243.0.2/24")
    assert reaches(one, "10.243.0.2", 3)
    tap, shaper = f"{one}v", TcShaper("test-bandwidth")
    # As libvirt leaves it.
    subprocess.run(["tc", "qdisc", "add", "dev", tap, "root", "handle", "0:", "noqueue"], check=True, timeout=10)
    asyncio.run(shaper.shape((Shape(tap, Queue(SLOW), Queue(SLOW)),), frozenset({tap})))
    flood(other, "10.243.0.1")
    assert overlimits(tap) > 0
    flood(one, "10.243.0.2")
    assert overlimits(ifb_name(tap)) > 0
    assert eventually(lambda: reaches(one, "10.243.0.2", 5))
    # A device that went and came back has its limits again, and what was of the old one is gone.
    ip("link", "del", tap)
    asyncio.run(shaper.shape((Shape(tap, Queue(SLOW), Queue(SLOW)),), frozenset({tap})))
    assert ifb_name(tap) not in asyncio.run(observe())
    ip("link", "add", tap, "type", "veth", "peer", "name", "eth0", "netns", one)
    asyncio.run(shaper.shape((Shape(tap, Queue(SLOW), Queue(SLOW)),), frozenset({tap})))
    assert asyncio.run(observe())[tap].queued
    # Another daemon of the same installation finds what is there and takes it away.
    asyncio.run(TcShaper("test-bandwidth").shape((), frozenset({tap})))
    found = asyncio.run(observe())
    assert not found[tap].queued
    assert not found[tap].ingress
    assert ifb_name(tap) not in found


def test_nothing_is_run_until_something_of_a_limit_changes(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked at each event and each relist."""
    ran: list[str] = []
    run = proc.run

    async def counted(argv: Sequence[str], **options: Any) -> proc.Completed:
        ran.append(argv[0])
        return await run(argv, **options)

    monkeypatch.setattr(proc, "run", counted)
    bridge = wires.bridge()
    tap = f"{wires.host(bridge, '10.246.0.1/24')}v"
    shape, ours = Shape(tap, Queue(SLOW), Queue(SLOW)), frozenset({tap, bridge, "crt-off"})

    async def scene() -> None:
        shaper = TcShaper("test-quiet")
        await shaper.shape((shape,), ours)
        assert ran
        ran.clear()
        await shaper.shape((shape,), ours)
        await shaper.shape((shape,), ours | {"crt-another"})
        assert not ran
        ip("link", "del", ifb_name(tap))
        await shaper.shape((shape,), ours)
        assert ran
        found = await observe()
        assert found[tap].queued
        assert found[tap].ingress
        assert found[ifb_name(tap)].queued
        # What no device's name tells is found at the next look.
        subprocess.run(["tc", "qdisc", "del", "dev", tap, "root"], check=True, timeout=10)
        watchful = TcShaper("test-quiet", look_s=0)
        await watchful.shape((shape,), ours)
        assert (await observe())[tap].queued
        subprocess.run(["tc", "qdisc", "del", "dev", tap, "root"], check=True, timeout=10)
        await watchful.shape((shape,), ours)
        assert (await observe())[tap].queued
        await shaper.shape((), ours)
        assert ifb_name(tap) not in await observe()

    asyncio.run(scene())


def test_a_promise_has_a_class_of_its_own_by_the_cards_mac(wires: Wires) -> None:
    bridge, shaper = wires.bridge(), TcShaper("test-promises")
    ip("addr", "add", "10.244.0.1/24", "dev", bridge)
    one, other = wires.host(bridge, "10.244.0.2/24"), wires.host(bridge, "10.244.0.3/24")
    promised = (Share(mac(one), 150_000),)
    shape = Shape(bridge, Queue(SLOW, promised), Queue(SLOW, promised))
    try:
        asyncio.run(shaper.shape((shape,), frozenset({bridge})))
        for device in (bridge, ifb_name(bridge)):
            before = classes(device)
            assert reaches(one, "10.244.0.1", 3)
            between = classes(device)
            assert reaches(other, "10.244.0.1", 3)
            after = classes(device)
            assert between["c0a1:3"] > before["c0a1:3"]
            assert after["c0a1:3"] == between["c0a1:3"]
            assert after["c0a1:2"] > between["c0a1:2"]
    finally:
        asyncio.run(shaper.shape((), frozenset({bridge})))
