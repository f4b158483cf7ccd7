"""The host's network cards, and a bridge of ours over one of them."""

import json
from pathlib import Path
from typing import Final

from pydantic import BaseModel, TypeAdapter

from corral import proc
from corral.errors import CorralError
from corral.files import storage_error
from corral.network.base import HostCard

_TIMEOUT_S: Final = 10.0
_SYS_NET: Final = Path("/sys/class/net")
_SYSCTL: Final = Path("/proc/sys/net/ipv4/conf")
_NO_ANSWER: Final = "8"  # to no local address at all: Documentation/networking/ip-sysctl
_ETHERNET: Final = "ether"
_IFF_UP: Final = 1  # netdevice(7)


class _Kind(BaseModel):
    info_kind: str = ""


class _Address(BaseModel):
    local: str = ""
    prefixlen: int = 32
    scope: str = ""


class _Link(BaseModel):
    ifname: str
    link_type: str = ""
    master: str = ""
    linkinfo: _Kind = _Kind()
    addr_info: tuple[_Address, ...] = ()


_LINKS: Final = TypeAdapter(tuple[_Link, ...])
# Ports of guests, and switches: nothing that a wire hangs on.
_NO_CARDS: Final = ("bridge", "tun", "ifb")


async def host_cards() -> tuple[HostCard, ...]:
    done = await proc.run((_ip(), "-j", "-d", "addr"), timeout_s=_TIMEOUT_S)
    found = []
    for link in _LINKS.validate_python([one for one in json.loads(done.stdout or b"[]") if one]):
        if link.link_type == _ETHERNET and link.linkinfo.info_kind not in _NO_CARDS:
            addresses = tuple(f"{each.local}/{each.prefixlen}" for each in link.addr_info if each.scope == "global")
            found.append(HostCard(link.ifname, addresses, link.master))
    return tuple(found)


async def has_vlans() -> bool:
    """Asked of the kernel, by a tagged interface that is gone at once."""
    name = "crv-probe"
    done = await _run("link", "add", "link", "lo", "name", name, "type", "vlan", "id", "2", check=False)
    await _run("link", "del", name, check=False)
    return done


async def ensure_bridge(bridge: str, nic: str, vlan: int) -> None:
    """A bridge with the card, or the tagged part of it, as its port. What is so already is left alone."""
    if not (_SYS_NET / nic).exists():
        raise CorralError("network-not-found", f"make a bridge over {nic}", "this host has no such card", "ip link")
    port = nic
    if vlan:
        port = tagged_name(bridge)
        if not (_SYS_NET / port).exists():
            await _run("link", "add", "link", nic, "name", port, "type", "vlan", "id", str(vlan))
    if not (_SYS_NET / bridge).exists():
        await _run("link", "add", bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    if not (_SYS_NET / bridge / "brif" / port).exists():
        await _run("link", "set", port, "master", bridge)
    for interface in dict.fromkeys((nic, port, bridge)):
        if not is_up(interface):
            await _run("link", "set", interface, "up")


def keep_silent(bridge: str) -> None:
    """The host answers nobody on it who asks for one of the host's addresses: others there may have the same."""
    path = _SYSCTL / bridge / "arp_ignore"
    try:
        if path.read_text().strip() != _NO_ANSWER:
            path.write_text(_NO_ANSWER)
    except OSError as error:
        raise storage_error(f"write {path}", error) from error


async def remove_bridge(bridge: str) -> None:
    """The card is as it was, without its tag; up."""
    for interface in (bridge, tagged_name(bridge)):
        if (_SYS_NET / interface).exists():
            await _run("link", "del", interface)


def is_up(interface: str) -> bool:
    """As somebody wished it, whether or not a wire is in."""
    try:
        return bool(int((_SYS_NET / interface / "flags").read_text(), 16) & _IFF_UP)
    except OSError:  # there is none, or it goes this instant
        return False


def tagged_name(bridge: str) -> str:
    """The tagged interface under a bridge of ours."""
    return f"crv{bridge.removeprefix('crl')}"


async def _run(*words: str, check: bool = True) -> bool:
    done = await proc.run((_ip(), *words), timeout_s=_TIMEOUT_S, check=check)
    return done.returncode == 0


def _ip() -> str:
    return proc.require("ip", "iproute2")
