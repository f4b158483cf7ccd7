"""How the kernel is told to slow a device down and to keep promises: lines for `tc` and `ip`, from typed wishes. Pure.

Not libvirt's `<bandwidth>`: that needs queueing and policing modules which not every kernel has, guarantees nothing in the
direction of the world, and changes a network's limit only by restarting it, which unplugs its guests
(docs/decisions/0027-bandwidth-by-tc.md). One class of HTB a limit, one more for each promise; what comes in at a device is
first sent through an intermediate one (ifb), since only what leaves a device can be queued.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.limits import BANDWIDTH_MIN_BYTES_PER_S
from corral.names import ifb_name

# Tells our queue from anybody else's: what has another handle is left alone.
HANDLE: Final = "c0a1:"
INGRESS: Final = "ffff:"
ALIAS: Final = "corral"
# The largest packet that a guest's card hands over at once (generic segmentation): less could never be sent in one go.
BURST_MIN_BYTES: Final = 65536
BURST_S: Final = 0.02
PEAK_BURST_S: Final = 0.004
# What a class may send in its turn, before the next one; HTB's own guess is far off at both ends.
QUANTUM_BYTES: Final = 60_000
# What the kernel, or libvirt, gives a device that nobody has thought about.
PLAIN_QUEUES: Final = frozenset({"noqueue", "pfifo_fast", "pfifo", "bfifo", "mq", "fq_codel", "fq", "codel", "cake"})
_REST: Final = 2
_FIRST_SHARE: Final = 3


@dataclass(frozen=True)
class Share:
    """What one guest, by its card's MAC, is promised of a network's limit."""

    mac: str
    bytes_per_s: int


@dataclass(frozen=True)
class Queue:
    """One direction of a device."""

    limit: Bandwidth = UNLIMITED
    shares: tuple[Share, ...] = ()

    @property
    def wished(self) -> bool:
        return self.limit.average_bytes_per_s > 0


@dataclass(frozen=True)
class Shape:
    """A device of the host's: what leaves it, and what comes in at it. A guest's card is the other end of its tap."""

    device: str
    leaving: Queue = Queue()
    coming: Queue = Queue()

    @property
    def wished(self) -> bool:
        return self.leaving.wished or self.coming.wished


@dataclass(frozen=True)
class Link:
    """A device as it is found. An index is never given twice while the host is up."""

    index: int
    alias: str = ""
    queued: bool = False
    """It has a queue of ours."""
    ingress: bool = False
    foreign: bool = False
    """Somebody else has put a queue on it."""


@dataclass(frozen=True)
class Plan:
    """Lines for `ip -batch`, then `tc -batch`, then `ip -batch` again."""

    made: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(self.made + other.made, self.queues + other.queues, self.removed + other.removed)

    def __bool__(self) -> bool:
        return bool(self.made or self.queues or self.removed)


def plan_device(shape: Shape, links: Mapping[str, Link], owner: str, *, made_before: bool = False) -> Plan:
    """Make a device so, whatever of ours it has now. `owner`: the installation, written at what is made. `made_before`: what
    comes in at it was limited by us, also if its intermediate device, which would tell, is no more."""
    device, found, helper = shape.device, links[shape.device], ifb_name(shape.device)
    made: list[str] = []
    queues: list[str] = []
    removed: list[str] = []
    if found.queued:
        queues.append(f"qdisc del dev {device} root")
    if shape.leaving.wished:
        queues += _tree(device, shape.leaving, by_source=False)
    ours = helper in links
    if (ours or made_before) and found.ingress:
        queues.append(f"qdisc del dev {device} ingress")
    if ours and links[helper].queued:
        queues.append(f"qdisc del dev {helper} root")
    if shape.coming.wished:
        if not ours:
            made.append(f"link add name {helper} type ifb")
        made += [f"link set dev {helper} alias {ALIAS}:{owner}:{device}", f"link set dev {helper} up"]
        queues += _tree(helper, shape.coming, by_source=True)
        queues.append(f"qdisc add dev {device} handle {INGRESS} ingress")
        queues.append(
            f"filter add dev {device} parent {INGRESS} protocol all prio 1 u32 match u32 0 0 "
            f"action mirred egress redirect dev {helper}"
        )
    elif ours:
        removed.append(f"link del dev {helper}")
    return Plan(tuple(made), tuple(queues), tuple(removed))


def plan_leftovers(links: Mapping[str, Link], owner: str) -> Plan:
    """Our intermediate devices whose device has gone: a guest that is off."""
    mine = f"{ALIAS}:{owner}:"
    gone = (name for name, link in links.items() if link.alias.startswith(mine))
    return Plan(removed=tuple(f"link del dev {name}" for name in gone if links[name].alias[len(mine) :] not in links))


def _tree(device: str, queue: Queue, *, by_source: bool) -> Iterator[str]:
    """Without promises one class; with them one for each, which borrow from each other up to the limit."""
    limit = queue.limit
    default = _REST if queue.shares else 1
    # `replace`: libvirt gives each tap a `noqueue` of its own.
    yield f"qdisc replace dev {device} root handle {HANDLE} htb default {default:x}"
    yield f"class add dev {device} parent {HANDLE} classid {HANDLE}1 htb {_rates(limit)}"
    if not queue.shares:
        return
    ceiling = limit.peak_bytes_per_s or limit.average_bytes_per_s
    for number, rate in enumerate((_rest(queue), *(share.bytes_per_s for share in queue.shares)), start=_REST):
        burst = max(BURST_MIN_BYTES, int(rate * BURST_S))
        yield (
            f"class add dev {device} parent {HANDLE}1 classid {HANDLE}{number:x} htb rate {rate}bps ceil {ceiling}bps "
            f"burst {burst} cburst {BURST_MIN_BYTES} quantum {QUANTUM_BYTES}"
        )
    for number, share in enumerate(queue.shares, start=_FIRST_SHARE):
        match = " ".join(_match(share.mac, by_source=by_source))
        yield f"filter add dev {device} parent {HANDLE} protocol all prio 1 u32 {match} flowid {HANDLE}{number:x}"


def _rates(limit: Bandwidth) -> str:
    average, peak = limit.average_bytes_per_s, limit.peak_bytes_per_s
    burst = max(BURST_MIN_BYTES, limit.burst_bytes or int(average * BURST_S))
    # With a peak the second bucket, which fills at the peak's speed, must run dry at once for the peak to hold.
    beyond = min(burst, max(BURST_MIN_BYTES, int(peak * PEAK_BURST_S))) if peak else burst
    return f"rate {average}bps ceil {peak or average}bps burst {burst} cburst {beyond} quantum {QUANTUM_BYTES}"


def _rest(queue: Queue) -> int:
    """What nobody was promised."""
    promised = sum(share.bytes_per_s for share in queue.shares)
    return max(BANDWIDTH_MIN_BYTES_PER_S, queue.limit.average_bytes_per_s - promised)


def _match(mac: str, *, by_source: bool) -> Iterable[str]:
    """The Ethernet header lies before what u32 counts from, and its words must be aligned."""
    octets = mac.lower().split(":")
    short, long = (
        ("".join(octets[:2]), "".join(octets[2:])) if not by_source else ("".join(octets[4:]), "".join(octets[:4]))
    )
    where = (-14, -12) if not by_source else (-4, -8)
    return (f"match u16 0x{short} 0xffff at {where[0]}", f"match u32 0x{long} 0xffffffff at {where[1]}")


def plan_all(
    shapes: Sequence[Shape],
    ours: frozenset[str],
    links: Mapping[str, Link],
    owner: str,
    done: Mapping[str, tuple[int, Shape]],
) -> tuple[Plan, dict[str, tuple[int, Shape]]]:
    """What makes every device of `ours` as it is wished, and what holds then. `done`: what was made so before, by device,
    with the index that it had: a device that came back is another one."""
    wished = {shape.device: shape for shape in shapes if shape.wished}
    plan, now = Plan(), dict[str, tuple[int, Shape]]()
    for device in sorted(ours & links.keys()):
        shape, link = wished.get(device, Shape(device)), links[device]
        if link.foreign:
            continue
        if shape.wished:
            now[device] = (link.index, shape)
        before = done.get(device)
        if before == (link.index, shape) and _as_wished(shape, links):
            continue
        if shape.wished or link.queued or ifb_name(device) in links:
            made_before = before is not None and before[0] == link.index and before[1].coming.wished
            plan += plan_device(shape, links, owner, made_before=made_before)
    return plan, now


def _as_wished(shape: Shape, links: Mapping[str, Link]) -> bool:
    """Nobody has taken its queues away since they were made."""
    found, helper = links[shape.device], links.get(ifb_name(shape.device))
    comes = found.ingress and helper is not None and helper.queued
    return (found.queued or not shape.leaving.wished) and (comes or not shape.coming.wished)
