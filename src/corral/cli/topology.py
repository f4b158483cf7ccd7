"""Who is on which network: from the API's documents, for a drawing. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["vm", "router", "world"]
WORLD: Final = "outside"
# Modes by which packets leave the host; guests of the others are among themselves, or behind a router.
_LEAVING: Final = {"nat": "NAT", "routed": "routed", "bridge": "bridge", "macvtap": "macvtap", "libvirt": "libvirt"}


@dataclass(frozen=True)
class Plug:
    """A card, or a router's port, on a network."""

    network: str
    """Its uid."""
    label: str
    """`net0 10.20.0.7`."""


@dataclass(frozen=True)
class Thing:
    """Something with plugs."""

    kind: Kind
    name: str
    plugs: tuple[Plug, ...]
    notes: tuple[str, ...] = ()
    active: bool = True


@dataclass(frozen=True)
class Wire:
    """A network."""

    uid: str
    name: str
    mode: str
    subnet: str
    active: bool = True


@dataclass(frozen=True)
class Topology:
    wires: tuple[Wire, ...]
    things: tuple[Thing, ...]
    """The world first, then routers, then VMs."""

    def on(self, wire: Wire) -> Iterator[tuple[Thing, Plug]]:
        for thing in self.things:
            for plug in thing.plugs:
                if plug.network == wire.uid:
                    yield thing, plug


@dataclass(frozen=True)
class Documents:
    """The API's, as they came."""

    networks: Sequence[Any]
    vms: Sequence[Any]
    routers: Sequence[Any] = ()
    forwards: Sequence[Any] = ()
    addresses: Sequence[Any] = ()
    balancers: Sequence[Any] = ()


def read_topology(documents: Documents, only: Iterable[str] = ()) -> Topology:
    """All networks, or those named `only` with what is on them."""
    names = frozenset(only)
    wires = [_wire(network) for network in documents.networks if not names or network["name"] in names]
    # What leads out first, and what is behind routers below it.
    wires.sort(key=lambda wire: (wire.mode not in _LEAVING, wire.name))
    shown = {wire.uid for wire in wires}
    notes = _notes(documents)
    things = [
        Thing("world", WORLD, tuple(Plug(wire.uid, _LEAVING[wire.mode]) for wire in wires if wire.mode in _LEAVING))
    ]
    things += [_router(router, notes) for router in _by_name(documents.routers)]
    things += [_vm(vm, notes) for vm in _by_name(documents.vms)]
    cut = [
        Thing(
            each.kind, each.name, tuple(plug for plug in each.plugs if plug.network in shown), each.notes, each.active
        )
        for each in things
    ]
    alone = [thing for thing in cut if thing.plugs or (not names and thing.kind == "vm")]
    return Topology(tuple(wires), tuple(alone))


def _by_name(found: Iterable[Any]) -> list[Any]:
    return sorted(found, key=lambda document: (document["project"], document["name"]))


def _wire(network: Any) -> Wire:
    spec = network["spec"]
    where = spec.get("subnet") or spec.get("nic") or spec.get("source") or spec.get("bridge") or ""
    both = f"{where} {spec['subnet6']}" if spec.get("subnet6") else where
    return Wire(network["uid"], network["name"], spec["mode"], both, network["status"]["active"])


def _vm(vm: Any, notes: dict[str, list[str]]) -> Thing:
    plugs = tuple(
        Plug(nic["network_uid"], " ".join(filter(None, (nic["name"], nic["address"], nic.get("address6", "")))))
        for nic in vm["spec"]["nics"]
    )
    return Thing("vm", vm["name"], plugs, tuple(notes[vm["uid"]]), vm["status"]["state"] == "running")


def _router(router: Any, notes: dict[str, list[str]]) -> Thing:
    spec = router["spec"]
    plugs = [Plug(port["network_uid"], port["address"]) for port in spec["ports"]]
    if (up := spec.get("uplink_port")) is not None:
        plugs.append(Plug(up["network_uid"], f"{up['address']} uplink, {spec['uplink']}"))
    return Thing("router", router["name"], tuple(plugs), tuple(notes[router["uid"]]), router["status"]["active"])


def _notes(documents: Documents) -> dict[str, list[str]]:
    """By the uid of what they are about: forwards and floating addresses of VMs, balancers of routers."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for forward in documents.forwards:
        spec = forward["spec"]
        found[spec.get("vm_uid") or ""].append(f"{spec['protocol']} {spec['host_port']} of the host → {spec['port']}")
    for address in documents.addresses:
        found[address["spec"].get("vm_uid") or ""].append(f"address {address['spec']['address']}")
    for balancer in documents.balancers:
        spec = balancer["spec"]
        targets = ", ".join(target["vm"] for target in spec["targets"])
        found[spec["router_uid"]].append(f"balancer {balancer['name']} :{spec['listen']} → {targets}")
    return found


def draw_text(topology: Topology) -> Iterator[str]:
    """A tree: networks, and what is on each."""
    for wire in topology.wires:
        facts = ", ".join(filter(None, (wire.mode, wire.subnet, "" if wire.active else "not up")))
        yield f"{wire.name}  ({facts})"
        found = [(thing, plug) for thing, plug in topology.on(wire) if thing.kind != "world"]
        if wire.mode in _LEAVING:
            yield f"{'├' if found else '└'}── outside, by {_LEAVING[wire.mode]}"
        for number, (thing, plug) in enumerate(found, start=1):
            last = number == len(found)
            kind = "router " if thing.kind == "router" else ""
            state = "" if thing.active else "  off" if thing.kind == "vm" else "  not up"
            yield f"{'└' if last else '├'}── {kind}{thing.name}  {plug.label}{state}"
            if _is_first(topology, wire, thing):
                yield from (f"{' ' if last else '│'}     {note}" for note in thing.notes)
        yield ""
    apart = [thing.name for thing in topology.things if not thing.plugs]
    if apart:
        yield f"on no network: {', '.join(apart)}"


def _is_first(topology: Topology, wire: Wire, thing: Thing) -> bool:
    """Notes are told once, where the thing is met first."""
    on = {plug.network for plug in thing.plugs}
    return next(each for each in topology.wires if each.uid in on) == wire
