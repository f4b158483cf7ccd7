"""A guest that attacks: real frames against the loaded firewall. It gets nowhere, and its victims stay reachable."""

from collections.abc import Iterator

import pytest
from wired_host import Guest, WiredHost, soon, wired_host

from corral.network.firewall.policy import Direction, Group, Net, Peer, Rule

DEFAULT = Group("default", (Rule("in", Direction.IN, peer=Peer("group", "default")), Rule("out", Direction.OUT)))
GATEWAY = "10.77.0.1"
NET = Net("n1", "default", "", "nat", ("10.77.0.0/24", "fd00:77::/64"), (GATEWAY, "fd00:77::1"))
FRAMES = """
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
own = wire.getsockname()[4]
def mac(text): return bytes.fromhex(text.replace(":", ""))
def frame(to, kind, body, source=own): wire.send(mac(to) + source + struct.pack(">H", kind) + body)
def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def ip4(source, target, protocol, body, fragment=0, ident=7):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), ident, fragment, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body
def udp(sport, dport, body): return struct.pack(">HHHH", sport, dport, 8 + len(body), 0) + body
def icmp6(source, target, body):
    source, target = (socket.inet_pton(socket.AF_INET6, one) for one in (source, target))
    body += b"" if len(body) % 2 == 0 else bytes(1)
    pseudo = source + target + struct.pack(">II", len(body), 58)
    body = body[:2] + struct.pack(">H", checksum(pseudo + body)) + body[4:]
    return struct.pack(">IHBB", 0x60000000, len(body), 58, 255) + source + target + body
"""


@pytest.fixture(scope="module")
def host() -> Iterator[WiredHost]:
    with wired_host() as made:
        net = made.network(NET)
        for name, number, groups in (("mallory", 66, ["default"]), ("victim", 12, ["default"]), ("shut", 13, ["none"])):
            made.guest(name, net, number, groups)
        for name in ("victim", "shut"):
            made.answer(made.guests[name].space, 80)
        made.load(groups=(DEFAULT,))
        yield made


@pytest.fixture
def mallory(host: WiredHost) -> Guest:
    return host.guests["mallory"]


@pytest.fixture(autouse=True)
def victims_stay_reachable(host: WiredHost, mallory: Guest) -> Iterator[None]:
    yield
    assert mallory.reaches("10.77.0.12", 80), "the victim's neighbours reach it as before"
    assert host.guests["victim"].pings(GATEWAY)
    assert not mallory.reaches("10.77.0.13", 80, timeout_s=0.3), "what was denied stays denied"


def refused(host: WiredHost, reason: str, before: dict[str, dict[str, int]]) -> None:
    soon(lambda: host.counters()[reason]["packets"] > before[reason]["packets"], f"counted as {reason}")


def test_an_address_of_anothers_is_not_spoken_from(host: WiredHost, mallory: Guest) -> None:
    before = host.counters()
    mallory.send(FRAMES + "frame('ff:ff:ff:ff:ff:ff', 0x800, ip4('10.77.0.12', '10.77.0.255', 17, udp(9, 9, b'x')))")
    mallory.do("ip", "addr", "add", "10.77.0.99/24", "dev", "eth0")
    try:
        bound = "import socket; s=socket.socket(2,2); s.bind(('10.77.0.99', 0)); s.sendto(b'?', ('10.77.0.12', 80))"
        mallory.send(bound)
        refused(host, "spoofed", before)
    finally:
        mallory.do("ip", "addr", "del", "10.77.0.99/24", "dev", "eth0")


def test_a_mac_of_anothers_is_not_spoken_from(host: WiredHost, mallory: Guest) -> None:
    before, victim = host.counters(), host.guests["victim"].card.mac
    said = "ip4('10.77.0.66', '10.77.0.13', 17, udp(9, 80, b'x'))"
    mallory.send(FRAMES + f"frame('{host.guests['shut'].card.mac}', 0x800, {said}, mac('{victim}'))")
    refused(host, "spoofed", before)


def test_the_gateways_address_is_not_taken_by_arp(host: WiredHost, mallory: Guest) -> None:
    before, victim = host.counters(), host.guests["victim"]
    assert victim.pings(GATEWAY)
    answer = f"struct.pack('>HHBBH', 1, 0x800, 6, 4, 2) + own + socket.inet_aton('{GATEWAY}')"
    answer += f" + mac('{victim.card.mac}') + socket.inet_aton('10.77.0.12')"
    mallory.send(FRAMES + f"frame('{victim.card.mac}', 0x806, {answer})")
    refused(host, "spoofed", before)
    assert mallory.card.mac not in victim.do("ip", "neigh", "show", GATEWAY).stdout


def test_a_neighbours_address_is_not_taken_by_ipv6(host: WiredHost, mallory: Guest) -> None:
    before, victim = host.counters(), host.guests["victim"]
    own = mallory.do("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link").stdout.split("inet6 ")[1].split("/")[0]
    said = "b'\\x88\\0\\0\\0\\x60\\0\\0\\0' + socket.inet_pton(socket.AF_INET6, 'fd00:77::1') + b'\\2\\1' + own"
    mallory.send(FRAMES + f"frame('{victim.card.mac}', 0x86dd, icmp6('{own}', 'ff02::1', {said}))")
    refused(host, "rogue", before)


@pytest.mark.parametrize("cover", ["options", "fragment", "behind the first fragment"])
def test_a_neighbours_address_is_not_taken_behind_other_headers(host: WiredHost, mallory: Guest, cover: str) -> None:
    """Where the target would be looked for stands an address of mallory's own."""
    before, victim = host.counters(), host.guests["victim"]
    own = mallory.do("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link").stdout.split("inet6 ")[1].split("/")[0]
    known = ("fd00:77::1", "dev", "eth0", "lladdr", "02:00:00:00:00:01", "nud", "stale")
    victim.do("ip", "neigh", "replace", *known)
    gateway = "socket.inet_pton(socket.AF_INET6, 'fd00:77::1')"
    script = FRAMES + f"advert = b'\\x88\\0\\0\\0\\x20\\0\\0\\0' + {gateway} + b'\\2\\1' + own\n"
    script += f"""
said = icmp6('{own}', 'ff02::1', advert)[40:]
mine = socket.inet_pton(socket.AF_INET6, '{own}')
options = bytes((58, 2, 0x1e, 20)) + bytes(4) + mine  # 24 bytes; its end is where a target is otherwise
ends = mine + socket.inet_pton(socket.AF_INET6, 'ff02::1')
def six(kind, body): return struct.pack('>IHBB', 0x60000000, len(body), kind, 255) + ends + body
def part(kind, offset, more, body): return six(44, struct.pack('>BBHI', kind, 0, offset | more, 77) + body)
"""
    sent = {
        "options": ("six(60, options + said)",),
        "fragment": ("part(58, 0, 1, said[:24])", "part(58, 24, 0, said[24:])"),
        "behind the first fragment": ("part(60, 0, 1, options)", "part(60, 24, 0, said)"),
    }
    for packet in sent[cover]:
        script += f"frame('{victim.card.mac}', 0x86dd, {packet})\n"
    mallory.send(script)
    if cover.startswith("behind"):  # the kernel itself puts no such thing together
        host.on_host("sleep", "0.5")
    else:
        refused(host, "rogue", before)
    assert mallory.card.mac not in victim.do("ip", "neigh", "show", "fd00:77::1").stdout


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("ip4('10.77.0.66', '255.255.255.255', 17, udp(67, 68, bytes(240)))", id="dhcp offer"),
        pytest.param("ip4('10.77.0.66', '10.77.0.12', 1, b'\\5\\1\\xfa\\xfe' + bytes(12))", id="icmp redirect"),
        pytest.param("ip4('10.77.0.66', '10.77.0.13', 17, udp(9, 80, b'x'))", id="unicast to everybody"),
    ],
)
def test_only_the_host_says_where_everybody_is(host: WiredHost, mallory: Guest, said: str) -> None:
    before = host.counters()
    mallory.send(FRAMES + f"frame('ff:ff:ff:ff:ff:ff', 0x800, {said})")
    refused(host, "rogue", before)


def test_neighbours_words_are_not_led_by_routers(host: WiredHost, mallory: Guest) -> None:
    """Nobody is asked for them at home; so they would be a way between networks that are kept apart."""
    before, shut = host.counters(), host.guests["shut"]
    said = f"icmp6('fd00:77::{66:x}', 'fd00:77::{13:x}', b'\\x87' + bytes(7) + socket.inet_pton(socket.AF_INET6, 'fd00:77::1'))"
    mallory.send(FRAMES + f"said = {said}\nframe('{shut.card.mac}', 0x86dd, said[:7] + b'\\x40' + said[8:])")
    refused(host, "deny-transit", before)


def test_no_guest_advertises_itself_as_a_router(host: WiredHost, mallory: Guest) -> None:
    before = host.counters()
    own = mallory.do("ip", "-6", "addr", "show", "dev", "eth0", "scope", "link").stdout.split("inet6 ")[1].split("/")[0]
    said = "b'\\x86\\0\\0\\0\\x40\\0\\7\\x08' + bytes(8)"
    mallory.send(FRAMES + f"frame('33:33:00:00:00:01', 0x86dd, icmp6('{own}', 'ff02::1', {said}))")
    refused(host, "rogue", before)
    assert "default" not in host.guests["victim"].do("ip", "-6", "route").stdout


@pytest.mark.parametrize("kind", [0x8100, 0x88A8, 0x88CC, 0x8863])
def test_no_frame_of_another_kind_passes(host: WiredHost, mallory: Guest, kind: int) -> None:
    """VLAN tags, single and double, LLDP, PPPoE."""
    before = host.counters()
    inner = "struct.pack('>HH', 5, 0x800) + ip4('10.77.0.66', '10.77.0.13', 17, udp(9, 80, b'x'))"
    mallory.send(FRAMES + f"frame('{host.guests['shut'].card.mac}', {kind}, {inner})")
    refused(host, "rogue", before)


def test_fragments_are_judged_whole(host: WiredHost, mallory: Guest) -> None:
    """The port lies in the first fragment alone, and the first one is as small as it may be."""
    before = host.counters()
    whole = "whole = udp(9, 80, bytes(64))\n"
    parts = (
        "ip4('10.77.0.66', '10.77.0.13', 17, whole[:8], 0x2000)",
        "ip4('10.77.0.66', '10.77.0.13', 17, whole[8:], 1)",
    )
    script = FRAMES + whole
    for part in parts:
        script += f"frame('{host.guests['shut'].card.mac}', 0x800, {part})\n"
    mallory.send(script)
    refused(host, "deny-in", before)


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200"])
def test_addresses_of_secrets_are_closed(host: WiredHost, mallory: Guest, address: str) -> None:
    before = host.counters()
    assert not mallory.reaches(address, 80, timeout_s=0.3)
    refused(host, "deny-closed", before)


def test_the_host_is_reached_for_dhcp_dns_and_echo_alone(host: WiredHost, mallory: Guest) -> None:
    host.answer(host.space, 53, 2222)
    assert mallory.reaches(GATEWAY, 53, kind="udp")
    assert mallory.reaches(GATEWAY, 53)
    assert mallory.pings(GATEWAY)
    assert not mallory.reaches(GATEWAY, 2222, timeout_s=0.3)
    assert not mallory.reaches("203.0.113.1", 53, timeout_s=0.3), "nor any other of the host's addresses"


def test_a_flood_fills_no_table(host: WiredHost, mallory: Guest) -> None:
    before = host.counters()
    mallory.send(
        "import socket\nfor port in range(2000, 22000):\n"
        "    s = socket.socket(2, 2); s.sendto(b'x', ('203.0.113.9', port)); s.close()"
    )
    refused(host, "deny-flood", before)
    entries = int(host.on_host("cat", "/proc/sys/net/netfilter/nf_conntrack_count").stdout)
    assert entries < 15_000
    assert host.guests["victim"].pings(GATEWAY)
    host.on_host("nft", "list", "tables")
    soon(lambda: mallory.reaches("10.77.0.12", 80), "what floods is let in again once it is quiet")
