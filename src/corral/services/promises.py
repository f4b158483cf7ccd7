"""What cards are promised of their networks' bandwidth: never more, all together, than the network has."""

from collections.abc import Sequence
from typing import Final

from corral.errors import CorralError
from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.network import Network
from corral.model.vm import NicSpec, Vm
from corral.names import format_rate
from corral.services.context import Context

_DIRECTIONS: Final = (("in", "bandwidth_in"), ("out", "bandwidth_out"))


async def check_cards(context: Context, networks: Sequence[Network], nics: Sequence[NicSpec], asked: str) -> None:
    """Raise `invalid-argument` or `insufficient-bandwidth` for cards, as they are to be, that want more of their networks
    than those can keep. What the same cards were promised before does not count."""
    macs = frozenset(nic.mac for nic in nics)
    passing_by = {network.uid: network.name for network in networks if not network.spec.filtered}
    for nic in nics:
        if nic.network_uid in passing_by and (nic.bandwidth_in, nic.bandwidth_out) != (UNLIMITED, UNLIMITED):
            reason = f"packets of network {passing_by[nic.network_uid]!r} pass by Corral's queues"
            raise CorralError("invalid-argument", asked, reason, "limit cards on other networks")
    for network in {network.uid: network for network in networks}.values():
        mine = [nic for nic in nics if nic.network_uid == network.uid]
        for word, field in _DIRECTIONS:
            wanted = sum(getattr(nic, field).floor_bytes_per_s for nic in mine)
            if not wanted:
                continue
            limit: Bandwidth = getattr(network.spec, field)
            if not network.spec.ours or not limit.average_bytes_per_s:
                reason = f"network {network.name!r} has no limit {word}, of which a part could be kept for a card"
                hint = f"corral network set {network.name} --{word} 1gbit"
                raise CorralError("invalid-argument", asked, reason, hint)
            left = limit.average_bytes_per_s - await _promised(context, network, field, macs)
            if wanted > left:
                whole = format_rate(limit.average_bytes_per_s)
                reason = f"of the {whole} {word} of network {network.name!r}, {format_rate(max(0, left))} are left"
                raise CorralError("insufficient-bandwidth", asked, reason, "promise less, or raise the network's limit")


async def check_card(context: Context, nic: NicSpec, asked: str) -> None:
    """Of a card that is there, as it is to be."""
    if (nic.bandwidth_in, nic.bandwidth_out) != (UNLIMITED, UNLIMITED):
        network = await context.objects.get(Network, nic.network_uid)
        await check_cards(context, () if network is None else (network,), (nic,), asked)


async def check_network(context: Context, network: Network, asked: str) -> None:
    """The limits of a network, as it is to be: what was promised of them stays possible."""
    spec = network.spec
    if not spec.ours and (spec.bandwidth_in, spec.bandwidth_out) != (UNLIMITED, UNLIMITED):
        reason = "what passes over a bridge that is not Corral's own is not Corral's to limit"
        raise CorralError("invalid-argument", asked, reason, "limit its cards: corral nic set VM CARD --in 100mbit")
    if spec.ours and not spec.hosted and (spec.bandwidth_in, spec.bandwidth_out) != (UNLIMITED, UNLIMITED):
        reason = "what its guests send beyond it passes their router, and no queue of the host's"
        raise CorralError("invalid-argument", asked, reason, "limit its cards: corral nic set VM CARD --in 100mbit")
    for word, field in _DIRECTIONS:
        limit: Bandwidth = getattr(spec, field)
        if limit.floor_bytes_per_s:
            raise CorralError("invalid-argument", asked, "a network is promised nothing", "promise it to its cards")
        promised = await _promised(context, network, field, frozenset())
        if promised > limit.average_bytes_per_s:
            reason = f"its cards are promised {format_rate(promised)} {word}"
            raise CorralError("insufficient-bandwidth", asked, reason, "take promises back: corral nic set VM CARD")


async def _promised(context: Context, network: Network, field: str, but: frozenset[str]) -> int:
    return sum(
        getattr(nic, field).floor_bytes_per_s
        for vm in await context.objects.list(Vm)
        for nic in vm.spec.nics
        if nic.network_uid == network.uid and nic.mac not in but
    )
