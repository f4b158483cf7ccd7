"""Packets of a device by the real tcpdump: bounded, by a user without rights, and never through a shell."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from wires import Wires, eventually, ip

from corral.errors import CorralError
from corral.model.capture import CaptureRequest
from corral.network.capture import capture, check_filter
from corral.network.pcap import HEADER_BYTES

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    """The host's end of a wire, and a namespace that pings without end over it."""
    wires = Wires()
    ping = None
    try:
        bridge = wires.bridge()
        ip("addr", "add", "10.245.0.1/24", "dev", bridge)
        namespace = wires.host(bridge, "10.245.0.2/24")
        command = ["ip", "netns", "exec", namespace, "busybox", "ping", "-q", "-i", "0.05", "10.245.0.1"]
        ping = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        yield f"{namespace}v", namespace
    finally:
        if ping is not None:
            ping.kill()
            ping.wait()
        wires.close()


async def all_of(pieces: AsyncGenerator[bytes, None]) -> bytes:
    async with aclosing(pieces):
        return b"".join([piece async for piece in pieces])


def read(content: bytes, path: Path) -> list[str]:
    """As tcpdump itself reads it again."""
    path.write_bytes(content)
    done = subprocess.run(["tcpdump", "-n", "-r", str(path)], check=True, capture_output=True, text=True, timeout=10)
    return done.stdout.splitlines()


def test_each_bound_ends_it_and_the_file_is_whole(pair: tuple[str, str], tmp_path: Path) -> None:
    device, _ = pair
    lines = read(asyncio.run(all_of(capture(device, CaptureRequest(filter="icmp", packets_max=4)))), tmp_path / "a")
    assert len(lines) == 4
    assert all("10.245.0.2" in line and "ICMP" in line for line in lines)
    content = asyncio.run(all_of(capture(device, CaptureRequest(bytes_max=1024, snap_bytes=64))))
    assert 512 < len(content) <= 1024
    assert read(content, tmp_path / "b")
    quiet = asyncio.run(all_of(capture(device, CaptureRequest(filter="tcp port 9", duration_s=0.5))))
    assert len(quiet) == HEADER_BYTES


def test_it_ends_with_its_device(pair: tuple[str, str]) -> None:
    device, _ = pair

    async def scene() -> None:
        async with aclosing(capture(device, CaptureRequest())) as pieces:
            await anext(pieces)
            ip("link", "del", device)
            async with asyncio.timeout(20):
                async for _ in pieces:
                    pass
        with pytest.raises(CorralError) as found:
            await anext(capture(device, CaptureRequest()))
        assert found.value.code == "wrong-state"

    asyncio.run(scene())


def processes(device: str) -> list[Path]:
    """Those of tcpdump that listen at the device."""
    wanted, found = f"tcpdump\0-i\0{device}\0".encode(), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if wanted in path.read_bytes():
                found.append(path.parent)
    return found


def test_it_has_one_right_and_ends_with_its_reader(pair: tuple[str, str]) -> None:
    device, _ = pair

    async def scene() -> None:
        async with aclosing(capture(device, CaptureRequest())) as pieces:
            await anext(pieces)
            [process] = processes(device)
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            assert "0" not in status["Uid"].split()
            net_raw = 1 << 13
            for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[kind], 16) == net_raw, kind
            assert status["NoNewPrivs"].strip() == "1"
        assert not processes(device)

    asyncio.run(scene())


DAEMON = """
import asyncio, sys
from corral.model.capture import CaptureRequest
from corral.network.capture import capture
async def scene():
    async for piece in capture(sys.argv[1], CaptureRequest(filter="tcp port 9")):
        print(len(piece), flush=True)
asyncio.run(scene())
"""


def test_it_dies_with_the_daemon_though_no_packet_comes(pair: tuple[str, str]) -> None:
    device, _ = pair
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, device], stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"%d\n" % HEADER_BYTES
        assert processes(device)
    finally:
        daemon.kill()
        daemon.wait()
    assert eventually(lambda: not processes(device))


@pytest.mark.parametrize(
    "text",
    [
        "tcp prt 80",
        "-w /tmp/corral-test-filter",
        "$(touch /tmp/corral-test-filter)",
        "`id`; host 1.1.1.1",
        "host name.of-some-host.example",
        "icmp\nor tcp",
        "tcp\0port 80",
        "(" * 900,
        "port 70000",
    ],
)
def test_filters_that_are_none_are_refused_before(text: str) -> None:
    with pytest.raises(CorralError) as found:
        asyncio.run(check_filter(text))
    assert found.value.code == "invalid-argument"
    assert not Path("/tmp/corral-test-filter").exists()


@pytest.mark.parametrize(
    "text", ["", "  ", "tcp port 80 and host 10.0.0.7", "icmp6 or arp", "ether host 52:54:00:1:2:3"]
)
def test_filters_that_libpcap_knows_pass(text: str) -> None:
    asyncio.run(check_filter(text))
