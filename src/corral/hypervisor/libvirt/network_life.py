"""One network made as it is wished, on a connection: defined, started, with its files, without cutting anyone off."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libvirt
from lxml.etree import _Element

from corral import proc
from corral.errors import CorralError
from corral.hypervisor.libvirt.metadata import parse_document
from corral.hypervisor.libvirt.network_document import (
    Change,
    build_network,
    has_placeholder,
    holds,
    in_use,
    placeholder_text,
    plan_changes,
    range_text,
    ranges4,
    reads_names,
    refreshing_changes,
    same_document,
    subnet_of,
)
from corral.hypervisor.libvirt.network_files import NetworkFiles
from corral.model.network import Network, NetworkSpec, Reservation
from corral.network.base import Lease
from corral.network.dnsmasq import dhcp_range, is_narrow
from corral.network.router_served import router_leases, tell_to_read

_LIVE: Final = libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
_CONFIG: Final = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
_ADD: Final = libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST
_DELETE: Final = libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE
_HOST: Final = libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST
_RANGE: Final = libvirt.VIR_NETWORK_SECTION_IP_DHCP_RANGE
# libvirt keeps the numbers of the processes that serve its networks there.
PID_DIR: Final = Path("/run/libvirt/network")
_SYS_NET: Final = Path("/sys/class/net")
_FIRST_ADDRESS: Final = 0


def find_network(handle: libvirt.virConnect, uid: str) -> libvirt.virNetwork | None:
    try:
        return handle.networkLookupByUUIDString(uid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
            return None
        raise


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """What was listed a moment ago, and others have removed since, is passed over."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise


def idle_subnets(handle: libvirt.virConnect) -> dict[str, str]:
    """Those of networks that are off, with whose they are."""
    found = {}
    for network in handle.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_INACTIVE):
        with unless_gone():
            root = parse_document(network.XMLDesc(0))
            for cidr in (subnet_of(root), subnet_of(root, "ipv6")):
                if cidr:
                    found[cidr] = f"libvirt's network {network.name()}"
    return found


def check_foreign(handle: libvirt.virConnect, name: str) -> bool:
    """A network that was made elsewhere runs; it is not touched. Raises `network-not-found`."""
    try:
        active = bool(handle.networkLookupByName(name).isActive())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_NETWORK:
            raise
        raise CorralError(
            "network-not-found", f"use network {name}", "libvirt has none of that name any more"
        ) from error
    if not active:
        hint = f"virsh net-start {name}"
        raise CorralError("network-not-found", f"use network {name}", "it was made elsewhere, and is off", hint)
    return True


def dnsmasq_of(name: str) -> int | None:
    """The process that serves DHCP and DNS on the network of this name, if it lives."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((PID_DIR / f"{name}.pid").read_text())
        if f"/{name}.conf".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def is_whole(name: str, root: _Element) -> bool:
    """What libvirt takes for running is there: the bridge, and who serves addresses on it."""
    bridge = root.find("bridge")
    if bridge is not None and not (_SYS_NET / (bridge.get("name") or "") / "bridge").exists():
        return False
    return root.find("ip/dhcp") is None or dnsmasq_of(name) is not None


@dataclass(frozen=True)
class Ensuring:
    """A network, as it is to be."""

    network: Network
    name: str
    """libvirt's."""
    files: NetworkFiles
    own_rules: bool

    def ensure(self, handle: libvirt.virConnect, wanted: Sequence[Reservation]) -> bool:
        """Define, start, and make the reservations so. What differs in more than those and dnsmasq's settings takes a
        restart of the network, which would unplug its guests: False where it runs on as it was, and the new definition
        waits for its next start."""
        spec = self.network.spec
        if spec.ours:
            self.files.read_by_server = False
            self.files.prepare()
        document = build_network(self.network, self.name, self.files.dnsmasq_options(), own_rules=self.own_rules)
        wish = parse_document(document)
        found = find_network(handle, self.network.uid)
        waits, unplugged = False, False
        if found is None:
            self._remove_left(handle)
            found = handle.networkDefineXML(document)
        elif found.isActive():
            live = parse_document(found.XMLDesc(0))
            unplugged = spec.ours and not (_SYS_NET / spec.bridge / "bridge").exists()
            waits = not unplugged and not holds(live, wish) and self._in_use(live)
            if unplugged or not (waits or holds(live, wish)):
                _stop(found)
        found = self._defined(handle, found, document, waits=waits)
        if spec.ours:
            restart = self.files.write_settings(spec)
            sync(found, wanted, self.files)
            if spec.hosted and found.isActive():
                self._serve(found, spec, restart=restart)
        if not found.isActive():
            self._start(found)
        if unplugged:
            plug_again(handle, self.name, spec.bridge)
        if not found.autostart():
            found.setAutostart(True)
        return not waits

    def _in_use(self, live: _Element) -> bool:
        """libvirt forgets how many are plugged in when their bridge is made anew; the bridge does not."""
        ports = _SYS_NET / self.network.spec.bridge / "brif"
        return in_use(live) or (self.network.spec.ours and ports.exists() and any(ports.iterdir()))

    def _defined(
        self, handle: libvirt.virConnect, found: libvirt.virNetwork, document: str, *, waits: bool
    ) -> libvirt.virNetwork:
        kept = parse_document(found.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))
        if same_document(kept, parse_document(document)):
            return found
        renamed = found.name() != self.name
        if renamed and waits:
            return found
        if renamed:
            found.undefine()
        return handle.networkDefineXML(document)

    def _serve(self, found: libvirt.virNetwork, spec: NetworkSpec, *, restart: bool) -> None:
        """dnsmasq lives, with its settings and its range; both by a change of the range, for which libvirt starts it anew.
        Guests notice nothing: their leases are kept."""
        live = parse_document(found.XMLDesc(0))
        narrow, kept = is_narrow(spec), has_placeholder(live)
        wanted = () if narrow else (dhcp_range(spec),)
        have = ranges4(live)
        if narrow and not kept:
            _update(found, _ADD, _HOST, placeholder_text(spec))
        fresh = [pair for pair in wanted if pair not in have]
        stale = [pair for pair in have if pair not in wanted]
        if not fresh and not stale and (restart or dnsmasq_of(self.name) is None):
            first = dhcp_range(spec)[0]
            fresh = stale = [(first, first)]
        for pair in fresh:
            _update(found, _ADD, _RANGE, range_text(pair))
        for pair in stale:
            _update(found, _DELETE, _RANGE, range_text(pair))
        if kept and not narrow:
            _update(found, _DELETE, _HOST, placeholder_text(spec))

    def _remove_left(self, handle: libvirt.virConnect) -> None:
        """A network of the same name is what an installation with the same id left behind: ours by its name, so it goes."""
        with contextlib.suppress(libvirt.libvirtError):
            left = handle.networkLookupByName(self.name)
            if left.UUIDString() != self.network.uid:
                _stop(left)
                left.undefine()

    def _start(self, found: libvirt.virNetwork) -> None:
        try:
            found.create()
        except libvirt.libvirtError as error:
            if found.isActive():
                return
            spec = self.network.spec
            if spec.ours and (_SYS_NET / spec.bridge).exists():
                asked = f"start network {found.name()}"
                reason = f"the interface {spec.bridge} is there already, and not libvirt's"
                raise CorralError(
                    "hypervisor-error", asked, reason, f"remove it: ip link delete {spec.bridge}"
                ) from error
            raise


def stop_and_undefine(handle: libvirt.virConnect, uid: str) -> None:
    found = find_network(handle, uid)
    if found is not None:
        _stop(found)
        found.undefine()


def _stop(found: libvirt.virNetwork) -> None:
    if found.isActive():
        found.destroy()


def plug_again(handle: libvirt.virConnect, name: str, bridge: str) -> None:
    """Put the cards of running guests back on a bridge that was made anew: isolated from each other, and down until
    they are."""
    taps = []
    for domain in handle.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        with contextlib.suppress(libvirt.libvirtError):  # it has ended meanwhile
            for card in parse_document(domain.XMLDesc(0)).iterfind("devices/interface"):
                source, target = card.find("source"), card.find("target")
                if source is not None and target is not None and source.get("network") == name:
                    taps.append((target.get("dev") or "", card.find("port[@isolated='yes']") is not None))
    ip = proc.require("ip", "iproute2")
    for tap, isolated in taps:
        commands = [("link", "set", tap, "down"), ("link", "set", tap, "master", bridge)]
        commands += [("link", "set", tap, "type", "bridge_slave", "isolated", "on")] if isolated else []
        for command in (*commands, ("link", "set", tap, "up")):
            if proc.call((ip, *command), check=False).returncode != 0:  # the guest has ended, or its card is gone
                break


def leases(found: libvirt.virNetwork, files: NetworkFiles) -> tuple[Lease, ...]:
    """Those that have not run out: also of guests that were deleted and never gave theirs back."""
    if files.of_router:
        return router_leases(files)
    return tuple(
        Lease(mac=lease["mac"] or "", address=lease["ipaddr"] or "", hostname=lease["hostname"] or "")
        for lease in found.DHCPLeases()
    )


def _lessees(found: libvirt.virNetwork, files: NetworkFiles) -> dict[str, list[str]]:
    """MACs by address."""
    known: dict[str, list[str]] = {}
    with contextlib.suppress(libvirt.libvirtError):  # without them a guest gets its address when the lease runs out
        for lease in leases(found, files):
            known.setdefault(lease.address, []).append(lease.mac)
    return known


def sync(found: libvirt.virNetwork, wanted: Sequence[Reservation], files: NetworkFiles) -> None:
    """Make all the reservations so."""
    _tell(found, files, forget=files.sync(wanted, _lessees(found, files)))


def put(found: libvirt.virNetwork, reservation: Reservation, files: NetworkFiles) -> None:
    leased: Mapping[str, Sequence[str]] = _lessees(found, files)
    gone = [mac for mac in leased.get(reservation.address, ()) if mac != reservation.mac]
    forget = files.put(reservation, [mac for mac in gone if not files.has(mac)])
    _tell(found, files, forget=forget)


def drop(found: libvirt.virNetwork, mac: str, files: NetworkFiles) -> None:
    _tell(found, files, forget=files.drop(mac))


def refresh(found: libvirt.virNetwork, files: NetworkFiles) -> None:
    """Let dnsmasq read all of its files again."""
    if files.of_router:
        tell_to_read(files)
    elif found.isActive():
        for change in refreshing_changes(parse_document(found.XMLDesc(0))):
            _apply(found, change, _LIVE)


def _tell(found: libvirt.virNetwork, files: NetworkFiles, *, forget: bool) -> None:
    """dnsmasq forgets when it is told to read all again. One that runs since before names were files is told those by
    libvirt; nothing of that is kept for its next start."""
    if files.of_router:
        if forget:
            tell_to_read(files)
        return
    if (files.read_by_server and not forget) or not found.isActive():
        return
    live = parse_document(found.XMLDesc(0))
    files.read_by_server = reads_names(live)
    changes: Sequence[Change] = () if files.read_by_server else plan_changes(live, files.known())
    if forget and not changes:
        changes = refreshing_changes(live)
    for change in changes:
        _apply(found, change, _LIVE)


def _apply(found: libvirt.virNetwork, change: Change, affect: int) -> None:
    command = _ADD if change.add else _DELETE
    found.update(command, libvirt.VIR_NETWORK_SECTION_DNS_HOST, -1, change.element, affect)


def _update(found: libvirt.virNetwork, command: int, section: int, element: str) -> None:
    found.update(command, section, _FIRST_ADDRESS, element, _LIVE)
