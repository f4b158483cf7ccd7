"""Networks that stand for a bridge of the host's."""

import re

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.network import Network, NetworkSpec
from corral.names import new_uid
from corral.services.context import Context


async def network_on(context: Context, bridge: str) -> Network:
    """The one there is, or the one that is to be made, named after the bridge (revision 0). Raises `invalid-argument`."""
    networks = await context.objects.list(Network)
    if (found := next((known for known in networks if known.spec.bridge == bridge), None)) is not None:
        if found.being_deleted:
            raise CorralError("network-in-use", f"bridge {bridge}", "its network is being deleted", "try again")
        return found
    await check_bridge(context, bridge, f"bridge {bridge}")
    name = re.sub(r"[^a-z0-9]+", "-", bridge.lower()).strip("-")
    if any((known.project, known.name) == (DEFAULT_PROJECT, name) for known in networks):
        name = f"bridge-{name}"
    spec = NetworkSpec(mode="bridge", bridge=bridge)
    return Network(name=name, uid=new_uid(), created_at=context.clock.now(), spec=spec)


async def check_bridge(context: Context, bridge: str, asked: str) -> None:
    """It is there, and not one that a network of ours makes."""
    there = await context.networks.bridges()
    if bridge not in there:
        ours = {network.spec.bridge for network in await context.objects.list(Network)}
        others = sorted(set(there) - ours)
        hint = f"there is {', '.join(others)}" if others else f"ip link add {bridge} type bridge makes one"
        raise CorralError("invalid-argument", asked, f"this host has no bridge {bridge}", hint)
