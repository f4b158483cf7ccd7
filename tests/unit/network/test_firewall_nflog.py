"""What the kernel tells of denied packets, read under the eyes of who sent them."""

import asyncio
import os
import socket
import struct

from corral.network.firewall.nflog import Denial, DenialLog, parse_packet, parse_packets


def ipv4(protocol: int, rest: bytes, fragment: int = 0) -> bytes:
    ends = socket.inet_aton("10.1.0.2") + socket.inet_aton("10.2.0.2")
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(rest), 0, fragment, 64, protocol, 0) + ends + rest


def ipv6(protocol: int, rest: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, "fd00::2") + socket.inet_pton(socket.AF_INET6, "fd00::3")
    return struct.pack(">IHBB", 6 << 28, len(rest), protocol, 64) + ends + rest


def message(prefix: bytes, payload: bytes) -> bytes:
    def attribute(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    body = struct.pack(">BBH", socket.AF_INET, 0, 77) + attribute(10, prefix + b"\0") + attribute(9, payload)
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body + bytes(-len(body) % 4)


def test_packets_are_understood_as_far_as_a_line_needs() -> None:
    tcp = parse_packet(ipv4(6, struct.pack(">HH", 40000, 80) + bytes(16)))
    assert tcp is not None
    assert (tcp.protocol, tcp.source, tcp.source_port, tcp.target, tcp.port) == (
        "tcp",
        "10.1.0.2",
        40000,
        "10.2.0.2",
        80,
    )
    echo = parse_packet(ipv6(58, b"\x80\x00\x00\x00"))
    assert echo is not None
    assert (echo.protocol, echo.source, echo.icmp_type) == ("icmpv6", "fd00::2", 128)
    later = parse_packet(ipv4(17, struct.pack(">HH", 1, 2), fragment=100))
    assert later is not None
    assert (later.protocol, later.port) == ("udp", None)
    odd = parse_packet(ipv4(47, b"x"))
    assert odd is not None
    assert odd.protocol == "47"


def test_what_is_cut_short_or_no_packet_is_passed_over() -> None:
    whole = ipv4(6, struct.pack(">HH", 1, 2))
    for data in (b"", whole[:19], b"\0" * 40, ipv6(6, b"")[:39], os.urandom(16)):
        assert parse_packet(data) is None
    told = message(b"deny-in", whole)
    for cut in range(len(told)):
        assert all(isinstance(found, Denial) for found in parse_packets(told[:cut] + bytes(8), 1.0))
    for _ in range(300):
        tuple(parse_packets(os.urandom(96), 1.0))


def test_several_packets_of_one_read_are_told_with_their_reasons() -> None:
    data = message(b"deny-out", ipv4(6, struct.pack(">HH", 1, 2))) + message(
        b"spoofed", ipv4(17, struct.pack(">HH", 3, 4))
    )
    found = list(parse_packets(data, 5.0))
    assert [(one.reason, one.protocol, one.port, one.time_s) for one in found] == [
        ("deny-out", "tcp", 2, 5.0),
        ("spoofed", "udp", 4, 5.0),
    ]


def test_the_last_are_kept_and_readers_wait_for_the_next() -> None:
    async def scene() -> None:
        log, one = DenialLog(kept=3), Denial(0, 0.0, "deny-in", "", "", "tcp", "a", "b")
        assert await log.wait_after(0, 0.01) == ()
        waiting = asyncio.create_task(log.wait_after(0, 5))
        await asyncio.sleep(0)
        for _ in range(5):
            log.add(one)
        assert [found.number for found in await waiting] == [3, 4, 5]
        assert [found.number for found in log.after(4)] == [5]
        assert log.after(5) == ()
        assert [found.number for found in log.after(6)] == [3, 4, 5]

    asyncio.run(scene())
