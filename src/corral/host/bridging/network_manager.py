"""A bridge under NetworkManager (nm-settings-keyfile(5)): two connections that are preferred to the card's own. Pure."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from corral.host.bridging.plan import SECRET_MODE, Command, Facts, Manager, Plan, TextFile, Wish, refuse, written
from corral.host.bridging.sections import Section, first, read_sections, write_sections

DIRECTORY: Final = "/etc/NetworkManager/system-connections"
COMMENT: Final = "Made by Corral: corral host network bridge"
PRIORITY: Final = "100"
_ADDRESSES: Final = ("ipv4", "ipv6", "proxy")
# uuid5's name space of Corral's connections: the same bridge always has the same two.
_NAMES: Final = uuid.UUID("5b0c7c2e-6f0e-4a0e-9d7e-0f3c1a6f7a10")


def plan_network_manager(facts: Facts, wish: Wish, known: TextFile) -> Plan:
    """Raises `unsupported` for what only a person can decide about."""
    sections = read_sections(known.text)
    kind = first(sections, "connection", "type")
    by_hand = "make the bridge with nmcli: nmcli connection add type bridge …"
    if kind not in ("ethernet", "802-3-ethernet"):
        raise refuse(wish, f"{known.path} is a connection of type {kind or 'unknown'}", by_hand)
    if first(sections, "connection", "master") or first(sections, "connection", "controller"):
        raise refuse(wish, f"by {known.path} the card is part of something already", by_hand)
    if any(section.name == "802-1x" for section in sections):
        raise refuse(wish, f"{known.path} logs in by 802.1X, which a bridge cannot do for its card", by_hand)
    bridge_id = str(uuid.uuid5(_NAMES, f"{wish.mac} {wish.bridge}"))
    port_id = str(uuid.uuid5(_NAMES, f"{wish.mac} {wish.bridge} {wish.nic}"))
    bridge = write_sections(_bridge(facts, wish, bridge_id, sections), COMMENT)
    port = write_sections(_port(wish, port_id, sections), COMMENT)
    stem = f"{DIRECTORY}/corral-{wish.bridge}"
    before = first(sections, "connection", "uuid") or facts.connection
    up = Command(("nmcli", "--wait", "40", "connection", "up", "uuid", before))
    reload = Command(("nmcli", "connection", "reload"))
    return Plan(
        manager=Manager.NETWORK_MANAGER,
        nic=wish.nic,
        bridge=wish.bridge,
        files=(
            written(facts, f"{stem}.nmconnection", bridge, SECRET_MODE),
            written(facts, f"{stem}-port.nmconnection", port, SECRET_MODE),
        ),
        # The port brings its bridge up; the other way round the bridge would wait for a port.
        after=(reload, Command(("nmcli", "--wait", "40", "connection", "up", "uuid", port_id))),
        undo_before=(Command(("nmcli", "connection", "down", "uuid", bridge_id), needed=False),),
        undo_after=(
            reload,
            Command(("nmcli", "device", "delete", wish.bridge), needed=False),
            up,
        ),
        undo_again=(up,),
        notes=(f"{known.path} stays as it is: Corral's connections have a higher priority", *_changes(sections)),
    )


def settings_kept(facts: Facts, sections: Sequence[Section]) -> Iterator[Section]:
    """What NetworkManager would choose otherwise for a bridge than for the card: how much its routes count, and who it is to
    a DHCP server."""
    identity = facts.identity
    known = {"ipv4": {"route-metric": identity.route_metric}}
    known["ipv6"] = {"route-metric": identity.route_metric, "dhcp-iaid": identity.iaid_v6}
    for name, settings in known.items():
        if not any(section.name == name for section in sections):
            continue  # it has a meaning that it is not there
        entries = [(key, value) for key, value in settings.items() if value and not first(sections, name, key)]
        if entries:
            yield Section(name, tuple(entries))


def _changes(sections: Sequence[Section]) -> Iterator[str]:
    """What it cannot be kept from."""
    if first(sections, "ipv6", "method") == "auto" and first(sections, "ipv6", "addr-gen-mode") not in (
        "",
        "0",
        "eui64",
    ):
        yield "its IPv6 addresses are made of the card's name too (addr-gen-mode): those of the bridge are others"


def _bridge(facts: Facts, wish: Wish, identity: str, sections: Sequence[Section]) -> Iterator[Section]:
    """With the addresses that the card had."""
    yield Section(
        "connection",
        (
            ("id", f"corral-{wish.bridge}"),
            ("uuid", identity),
            ("type", "bridge"),
            ("interface-name", wish.bridge),
            ("autoconnect-priority", PRIORITY),
        ),
    )
    yield Section("bridge", (("mac-address", wish.mac.upper()), ("stp", "false")))
    kept = {section.name: section.entries for section in settings_kept(facts, sections)}
    for section in sections:
        if section.name in _ADDRESSES:
            yield Section(section.name, (*section.entries, *kept.get(section.name, ())))


def _port(wish: Wish, identity: str, sections: Sequence[Section]) -> Iterator[Section]:
    """With what is the card's own: its MTU, its speed."""
    yield Section(
        "connection",
        (
            ("id", f"corral-{wish.bridge}-port"),
            ("uuid", identity),
            ("type", "ethernet"),
            ("interface-name", wish.nic),
            ("master", wish.bridge),
            ("slave-type", "bridge"),
            ("autoconnect-priority", PRIORITY),
        ),
    )
    yield from (section for section in sections if section.name in ("ethernet", "802-3-ethernet"))
