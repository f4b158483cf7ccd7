"""What a network may be: each part by itself, and all together. Nothing is changed here."""

import ipaddress
from collections.abc import Iterable
from typing import Final

from corral.errors import CorralError
from corral.model import limits
from corral.model.network import NetworkSpec
from corral.model.network_parts import MakeableMode, StaticReservation
from corral.model.network_requests import CreateNetworkRequest, NetworkServing
from corral.network import ipam
from corral.network.addresses import address6_of
from corral.network.base import HostCard
from corral.store.objects import claim_key

# What DHCP itself is made of, and what the reservations say: dnsmasq alone sets these (RFC 2132, section 9; 4361; 3046).
_OWN_OPTIONS: Final = (1, 12, 28, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 61, 81, 82)
_SERVED: Final = ("dns", "dhcp_first", "dhcp_last", "dhcp_options", "boot", "dhcp_relay", "reservations", "host_names")


def mode_of(request: CreateNetworkRequest, asked: str) -> MakeableMode:
    """What it will be. Raises `invalid-argument` for what contradicts itself."""
    over_card = request.nic is not None
    plain: MakeableMode = "isolated" if request.gateway_at == "router" else "nat"
    mode = request.mode or ("bridge" if request.bridge is not None or over_card else plain)
    if request.gateway_at == "router" and mode != "isolated":
        reason = f"in a network of mode {mode} a router is not the gateway: it leads out by itself"
        raise CorralError("invalid-argument", asked, reason, "--mode isolated, and --uplink of its router")
    if mode == "bridge" and (request.bridge is None) is not over_card:
        reason = "mode bridge needs a bridge of the host's, or a card to make one over: one of the two"
        raise CorralError("invalid-argument", asked, reason, "--bridge br0, or --nic eth1")
    if mode == "macvtap" and (not over_card or request.bridge is not None):
        raise CorralError("invalid-argument", asked, "mode macvtap needs a card of the host's", "--nic eth1")
    if mode not in ("bridge", "macvtap") and (request.bridge is not None or over_card):
        raise CorralError("invalid-argument", asked, f"a network of mode {mode} makes its own bridge", "--mode bridge")
    if request.vlan is not None and (mode != "bridge" or not over_card):
        raise CorralError("invalid-argument", asked, "frames are tagged on a card", "--nic eth1 --vlan 20")
    if mode in ("bridge", "macvtap") and _serves(request):
        reason = "addresses and names on a bridge or a card of the host's come from whoever serves them there"
        raise CorralError("invalid-argument", asked, reason, "leave subnet, domain and what DHCP serves out")
    return mode


def _serves(request: CreateNetworkRequest) -> bool:
    plain = CreateNetworkRequest(name=request.name)
    others = ("subnet", "subnet6", "ipv6", "domain", "mtu")
    return any(getattr(request, each) != getattr(plain, each) for each in (*_SERVED, *others))


def served(request: NetworkServing) -> dict[str, object]:
    """The fields of a spec that say what is served."""
    return {each: getattr(request, each) for each in _SERVED}


def settled(spec: NetworkSpec, asked: str) -> NetworkSpec:
    """A spec of ours that holds together, with what follows from the rest. Raises `invalid-argument`."""
    if not spec.hosted and spec.host_names:
        reason = "a router is its gateway, and names of what the host does not reach are not the host's"
        raise CorralError("invalid-argument", asked, reason, "leave --host-names out")
    if spec.subnet6 and 0 < spec.mtu < limits.MTU_IPV6_MIN:
        reason = f"IPv6 needs an MTU of at least {limits.MTU_IPV6_MIN}"
        raise CorralError("invalid-argument", asked, reason, f"--mtu {limits.MTU_IPV6_MIN}, or no IPv6")
    if not ipam.given_out(spec.subnet, spec.dhcp_first, spec.dhcp_last):
        reason = f"the range {spec.dhcp_first or '…'}-{spec.dhcp_last or '…'} ends before it begins"
        raise CorralError("invalid-argument", asked, reason, "the first address first")
    for server in spec.dns:
        _check_address(server, (4, 6), "DNS server")
        if server in (spec.first_address, spec.first_address6):
            raise CorralError("invalid-argument", asked, f"{server} would ask itself", "name another server")
    if spec.boot is not None and spec.boot.server:
        _check_address(spec.boot.server, (4,), "boot server")
    _check_options(spec, asked)
    if spec.dhcp_relay:
        _check_relay(spec, asked)
    return spec.model_copy(update={"reservations": _settled_reservations(spec, asked)})


def _check_address(text: str, versions: Iterable[int], what: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise CorralError("invalid-argument", f"{what} {text!r}", "it is no address", "for example 9.9.9.9") from error
    if address.version not in versions:
        raise CorralError("invalid-argument", f"{what} {text}", "it is not an IPv4 address", "for example 10.0.0.1")
    # What follows a `%` may be any text, lines of dnsmasq's among them (RFC 4007, section 11).
    if address.is_unspecified or address.is_multicast or str(address).partition("%")[1]:
        raise CorralError("invalid-argument", f"{what} {text!r}", "no machine has such an address", "name a machine's")


def _check_relay(spec: NetworkSpec, asked: str) -> None:
    _check_address(spec.dhcp_relay, (4,), "DHCP server")
    if spec.hosted:
        reason = "this host is the network's gateway, and serves DHCP"
        raise CorralError("invalid-argument", asked, reason, "a relay is for networks made with --gateway router")
    if ipaddress.IPv4Address(spec.dhcp_relay) in ipaddress.IPv4Network(spec.subnet):
        reason = f"{spec.dhcp_relay} is in the network itself, where guests would ask it themselves"
        raise CorralError("invalid-argument", asked, reason, "no guest may play DHCP server: name one elsewhere")
    said = {"range": spec.dhcp_first or spec.dhcp_last, "options": spec.dhcp_options, "boot file": spec.boot}
    if told := [what for what, value in said.items() if value]:
        reason = f"DHCP's {', '.join(told)} would come from {spec.dhcp_relay}"
        raise CorralError("invalid-argument", asked, reason, "tell that server, and leave them out here")


def _check_options(spec: NetworkSpec, asked: str) -> None:
    codes = [option.code for option in spec.dhcp_options]
    if (own := next((code for code in codes if code in _OWN_OPTIONS), None)) is not None:
        raise CorralError(
            "invalid-argument", asked, f"DHCP option {own} follows from the network itself", "leave it out"
        )
    if (twice := next((code for code in codes if codes.count(code) > 1), None)) is not None:
        hint = "several values of one option are divided by commas"
        raise CorralError("invalid-argument", asked, f"DHCP option {twice} is given twice", hint)


def _settled_reservations(spec: NetworkSpec, asked: str) -> tuple[StaticReservation, ...]:
    settled = []
    for kept in spec.reservations:
        address = ipam.address_at(spec.subnet, ipam.parse_address(spec.subnet, kept.address))
        address6 = address6_of(spec, address, kept.mac)
        settled.append(kept.model_copy(update={"address": address, "address6": address6}))
    for what in ("name", "mac", "address"):
        values = [getattr(kept, what) for kept in settled]
        if (twice := next((value for value in values if values.count(value) > 1), None)) is not None:
            raise CorralError("address-taken", asked, f"two reservations have the {what} {twice}", "give each its own")
    return tuple(settled)


def check_card(cards: Iterable[HostCard], name: str, mode: str, vlan: int | None, asked: str) -> None:
    """It is there, and nobody's way to this host goes over it as it is. Raises `invalid-argument`."""
    known = {card.name: card for card in cards}
    card = known.get(name)
    if card is None:
        raise CorralError(
            "invalid-argument", asked, f"this host has no card {name}", f"there is {', '.join(sorted(known))}"
        )
    if card.master and vlan is None:
        raise CorralError("invalid-argument", asked, f"{name} is a port of {card.master}", f"--bridge {card.master}")
    if mode == "bridge" and vlan is None and card.addresses:
        reason = f"the host itself is reached over {name} ({', '.join(card.addresses[:2])}): that would cut it off"
        raise CorralError("invalid-argument", asked, reason, f"corral host network bridge {name} moves it safely")


def reservation_claims(uid: str, reservations: Iterable[StaticReservation]) -> frozenset[str]:
    """The keys of what these reservations of a network have and nobody else may."""
    macs = {claim_key("mac", "host", kept.mac) for kept in reservations}
    addresses = {
        claim_key("address", uid, each) for kept in reservations for each in (kept.address, kept.address6) if each
    }
    return frozenset(macs | addresses)
