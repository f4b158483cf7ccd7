"""What the planners look at, read from the host: the card, and the files of those who configure it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

from corral import proc
from corral.errors import CorralError
from corral.files import read_limited
from corral.host.bridging.ifupdown import words_of
from corral.host.bridging.network_manager import DIRECTORY as CONNECTIONS
from corral.host.bridging.networkd import DIRECTORY as NETWORKD
from corral.host.bridging.networkd import netplan_drop_in
from corral.host.bridging.plan import CLOUD_INIT_OFF, Facts, Identity, NicFacts, TextFile
from corral.host.bridging.sections import Section, first, read_sections

FILE_MAX_BYTES: Final = 256 * 1024
TIMEOUT_S: Final = 10.0
_ARPHRD_ETHER: Final = 1  # if_arp.h
_DEPTH_MAX: Final = 8
# run-parts(8)'s names, which interfaces(5) takes from a source-directory.
_SOURCED: Final = re.compile(r"[A-Za-z0-9_-]+")
_NETPLAN: Final = ("lib/netplan", "etc/netplan", "run/netplan")
_KEYFILES: Final = ("etc/NetworkManager/system-connections", "run/NetworkManager/system-connections")
ROOT: Final = Path("/")


def read_facts(nic: str, bridge: str, root: Path = ROOT) -> Facts:
    """Raises `device-not-found` where there is no such card."""
    links = {link["ifname"]: link for link in _ip("-d", "address", "show")}
    link = links.get(nic)
    if link is None:
        known = ", ".join(sorted(name for name in links if name != "lo")[:12])
        raise CorralError("device-not-found", f"card {nic}", "this host has no such interface", f"it has: {known}")
    sysfs = root / "sys/class/net" / nic
    index = int(link["ifindex"])
    kind = str(link.get("linkinfo", {}).get("info_kind", ""))
    defaults = _ip("route", "show", "default")
    connection = _connection(root, index)
    card = NicFacts(
        name=nic,
        mac=str(link.get("permaddr") or link.get("address") or "").lower(),
        ethernet=(sysfs / "type").read_text().strip() == str(_ARPHRD_ETHER),
        wireless=(sysfs / "wireless").exists() or (sysfs / "phy80211").exists(),
        virtual=kind,
        master=str(link.get("master", "")),
        addresses=_global(link),
        default_route=any(route.get("dev") == nic for route in defaults),
        index=index,
    )
    return Facts(
        nic=card,
        interfaces=frozenset(links),
        ifupdown=_ifupdown(root),
        networkd=_networkd(root, index),
        netplan=_netplan(root),
        network_manager=_network_manager(root, connection),
        connection=connection,
        identity=_identity(root, index),
        others=_there(root, bridge),
        cloud_init=(root / "etc/cloud/cloud.cfg.d").is_dir(),
    )


def addresses_of(nic: str) -> tuple[str, ...]:
    """Those that others reach it by; none where there is no such card."""
    return tuple(found for link in _ip("address", "show") if link["ifname"] == nic for found in _global(link))


def _global(link: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        f"{one['local']}/{one['prefixlen']}" for one in link.get("addr_info", ()) if one.get("scope") == "global"
    )


def _ip(*words: str) -> list[Any]:
    done = proc.call((proc.require("ip", "iproute2"), "-j", *words), timeout_s=TIMEOUT_S)
    found: list[Any] = json.loads(done.stdout or b"[]")
    return found


def _file(root: Path, path: Path) -> TextFile:
    """Named as from the root itself."""
    text = read_limited(path, FILE_MAX_BYTES).decode(errors="surrogateescape")
    return TextFile(f"/{path.relative_to(root)}", text, path.stat().st_mode & 0o777)


def _ifupdown(root: Path) -> tuple[TextFile, ...]:
    main = root / "etc/network/interfaces"
    found: dict[str, TextFile] = {}

    def read(path: Path, depth: int) -> None:
        if depth > _DEPTH_MAX or not path.is_file() or str(path) in found:
            return
        file = found[str(path)] = _file(root, path)
        for words in words_of(file.text):
            if words[0] == "source":
                for pattern in words[1:]:
                    for found_there in _below(root, path, pattern):
                        read(found_there, depth + 1)
            elif words[0] == "source-directory":
                for pattern in words[1:]:
                    for found_there in _below(root, path, f"{pattern}/*"):
                        if _SOURCED.fullmatch(found_there.name):
                            read(found_there, depth + 1)

    read(main, 0)
    return tuple(found.values())


def _below(root: Path, file: Path, pattern: str) -> list[Path]:
    """What a pattern of a file names, in order; one without a slash at its beginning is beside the file."""
    place = root if pattern.startswith("/") else file.parent
    return sorted(place.glob(pattern.strip("/")))


def _networkd(root: Path, index: int) -> tuple[TextFile, ...]:
    """As it says itself what it has applied (its state is kept below /run)."""
    said = _said(root / "run/systemd/netif/links" / str(index))
    path = said.get("NETWORK_FILE", "")
    if not path or said.get("ADMIN_STATE") == "unmanaged":
        return ()
    main = root / path.lstrip("/")
    places = ("usr/lib", "lib", "etc", "run")
    drop_ins = {
        found.name: found
        for place in places
        for found in (root / place / "systemd/network" / f"{main.name}.d").glob("*.conf")
    }
    return tuple(_file(root, file) for file in (main, *(drop_ins[name] for name in sorted(drop_ins))))


def _said(path: Path) -> dict[str, str]:
    """systemd-networkd's notes on a card; empty where it made none."""
    if not path.is_file():
        return {}
    return dict(line.partition("=")[::2] for line in path.read_text().splitlines())


def _identity(root: Path, index: int) -> Identity:
    netif = root / "run/systemd/netif"
    lease, link = (_said(netif / kind / str(index)) for kind in ("leases", "links"))
    device = _device(root, index)
    client = lease.get("CLIENTID", "")
    return Identity(
        iaid_v4=f"0x{client[2:10]}" if client.startswith("ff") and len(client) > len("ffIAIDIAID") else "",
        iaid_v6=link.get("DHCP6_CLIENT_IAID", "") or first(device, "dhcp6", "dhcp6.iaid"),
        route_metric=first(device, "device", "route-metric-default-effective"),
    )


def _device(root: Path, index: int) -> tuple[Section, ...]:
    """NetworkManager's notes on a card; empty where it made none."""
    state = root / "run/NetworkManager/devices" / str(index)
    return read_sections(state.read_text()) if state.is_file() else ()


def _netplan(root: Path) -> tuple[TextFile, ...]:
    """A file in a later place hides one of the same name in an earlier one."""
    found = {path.name: path for place in _NETPLAN for path in (root / place).glob("*.yaml")}
    return tuple(_file(root, found[name]) for name in sorted(found))


def _connection(root: Path, index: int) -> str:
    device = _device(root, index)
    managed = first(device, "device", "managed") == "true"
    return first(device, "device", "connection-uuid") if managed else ""


def _network_manager(root: Path, connection: str) -> TextFile | None:
    """Asked of itself: a file need not say its UUID. One that does not run (any more) configures nothing."""
    nmcli = shutil.which("nmcli")
    if not connection or nmcli is None:
        return None
    argv = (nmcli, "--terse", "--escape", "no", "--fields", "UUID,FILENAME", "connection", "show")
    try:
        said = proc.call(argv, timeout_s=TIMEOUT_S).stdout.decode(errors="surrogateescape")
    except CorralError:
        return None
    for line in said.splitlines():
        uuid, _, name = line.partition(":")
        path = root / name.lstrip("/")
        if uuid == connection and path.is_file() and str(path.parent.relative_to(root)) in _KEYFILES:
            return _file(root, path)
    return None


def _there(root: Path, bridge: str) -> dict[str, TextFile]:
    stem = f"00-corral-{bridge}"
    paths = [f"{NETWORKD}/{stem}.netdev", f"{NETWORKD}/{stem}-port.network", f"{NETWORKD}/{stem}.network"]
    paths += [f"{CONNECTIONS}/corral-{bridge}.nmconnection", f"{CONNECTIONS}/corral-{bridge}-port.nmconnection"]
    paths += [netplan_drop_in(bridge), CLOUD_INIT_OFF]
    return {path: _file(root, root / path.lstrip("/")) for path in paths if (root / path.lstrip("/")).is_file()}
