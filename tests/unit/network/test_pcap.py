"""Captures are cut at whole packets, and within their bounds, however the bytes come."""

import struct
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.network.connections import READ_MAX, connections, count
from corral.network.pcap import HEADER_BYTES, PacketCutter, empty_capture


def packet(size: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}IIII", 1, 2, size, size) + bytes(size)


@pytest.mark.parametrize("piece", [1, 7, 16, 100, 4096])
def test_whole_packets_only(piece: int) -> None:
    content = empty_capture(65535) + packet(60) + packet(1500) + packet(0) + packet(99)
    cutter = PacketCutter(10**6)
    out = [cutter.feed((content + packet(500)[:100])[at : at + piece]) for at in range(0, len(content) + 100, piece)]
    assert b"".join(out) == content
    assert (cutter.packets, cutter.bytes, cutter.full) == (4, len(content), False)


@pytest.mark.parametrize("room", [0, 75, 76, 77, 151, 152])
def test_what_does_not_fit_ends_it(room: int) -> None:
    cutter = PacketCutter(HEADER_BYTES + room)
    out = cutter.feed(empty_capture(65535) + packet(60) * 3)
    assert len(out) == HEADER_BYTES + room // 76 * 76
    assert cutter.full
    assert cutter.feed(packet(60)) == b""


def test_a_length_that_lies_is_never_waited_for() -> None:
    cutter = PacketCutter(10_000)
    cutter.feed(empty_capture(65535) + struct.pack("<IIII", 0, 0, 2**32 - 1, 60))
    assert cutter.full


def test_what_is_no_capture_is_refused() -> None:
    with pytest.raises(CorralError) as found:
        PacketCutter(100).feed(b"tcpdump: no such device exists......")
    assert found.value.code == "command-failed"


def test_connections_count_for_everyone_who_has_a_part() -> None:
    lines = (
        (
            "ipv4 2 tcp 6 431999 ESTABLISHED src=10.1.0.2 dst=1.1.1.1 sport=4 dport=80 src=1.1.1.1 dst=5.5.5.5 sport=80 "
            "dport=4 [ASSURED] mark=0 zone=0 use=2"
        ),
        "ipv4 2 udp 17 29 src=10.1.0.2 dst=10.1.0.1 sport=4 dport=53 src=10.1.0.1 dst=10.1.0.2 sport=53 dport=4 use=2",
        "ipv4 2 icmp 1 29 src=10.1.0.2 dst=10.1.0.3 type=8 code=0 id=1 src=10.1.0.3 dst=10.1.0.2 type=0 zone=7 use=1",
    )
    found = count(lines)
    assert found[0, "10.1.0.2"] == 2
    assert found[0, "5.5.5.5"] == 1
    assert found[7, "10.1.0.2"] == 1


def test_no_table_is_not_the_same_as_no_connections(tmp_path: Path) -> None:
    table, number = tmp_path / "nf_conntrack", tmp_path / "count"
    assert connections(table, number) is None
    number.write_text("0\n")
    assert connections(table, number) is None
    table.mkdir()  # which is as unreadable as one of root's is to others
    assert connections(table, number) is None
    table.rmdir()
    table.touch()
    assert connections(table, number) == {}


def test_a_table_that_is_very_long_is_not_read(tmp_path: Path) -> None:
    table, number = tmp_path / "nf_conntrack", tmp_path / "count"
    table.write_text("ipv4 2 tcp 6 9 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1\n")
    number.write_text(f"{READ_MAX}\n")
    assert connections(table, number) == {(0, "10.0.0.1"): 1, (0, "10.0.0.2"): 1}
    number.write_text(f"{READ_MAX + 1}\n")
    assert connections(table, number) is None
