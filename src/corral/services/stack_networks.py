"""The networks of a stack: which are there, which are to be made, and what of them cannot be changed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.network import Network
from corral.model.network_requests import CreateNetworkRequest
from corral.model.vm import Vm
from corral.network import ipam
from corral.network.subnets import check_subnet
from corral.services.access import authorize
from corral.services.bridges import check_bridge
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.creation import PlannedVm
from corral.services.network_rules import mode_of
from corral.services.nics import find_network, mac_of
from corral.services.stack_diff import wished_nics
from corral.services.stack_document import Stack, Trouble
from corral.services.stack_state import check_own
from corral.store.objects import claim_key

_FIXED: Final = (
    *("subnet", "subnet6", "ipv6", "domain", "mtu", "gateway_at", "bridge", "nic", "vlan"),
    *("dns", "dhcp_first", "dhcp_last", "dhcp_options", "boot", "dhcp_relay", "host_names"),
)
NETWORKS_HINT: Final = (
    "corral network list shows those that there are; one with more than a name under `networks:` is made"
)


@dataclass(frozen=True)
class NetworkNeed:
    """A network that the stack declares. `fixed`: what only a new one could have otherwise."""

    request: CreateNetworkRequest
    there: Network | None
    fixed: tuple[str, ...] = ()


async def declared_networks(
    context: Context, caller: Caller, project: str, stack: Stack, troubles: list[Trouble]
) -> dict[str, NetworkNeed]:
    """Those of the document, as they are or will be."""
    found: dict[str, NetworkNeed] = {}
    for name, request in stack.new_networks.items():
        await authorize(context, caller, project, "network.create", name)
        if request.bridge is not None or request.nic is not None:
            await authorize(context, caller, DEFAULT_PROJECT, "host.use-bridge", name)
        try:
            found[name] = await _find(context, project, request, stack.name)
        except CorralError as error:
            troubles.append(Trouble(f"networks.{name}", error))
    return found


async def _find(context: Context, project: str, request: CreateNetworkRequest, stack: str) -> NetworkNeed:
    """Raises `name-taken` for a network that is not the stack's."""
    asked = f"network {request.name!r}"
    mode = mode_of(request, asked)
    if request.subnet:
        check_subnet(request.subnet)
    there = await context.objects.find(Network, project, request.name)
    if there is None:
        if request.bridge is not None:
            await check_bridge(context, request.bridge, asked)
        return NetworkNeed(request, None)
    check_own(there, stack, asked)
    if there.being_deleted:
        raise CorralError("network-in-use", asked, "it is being deleted", "apply again in a moment")
    wished: dict[str, object] = {each: getattr(request, each) for each in _FIXED if each in request.model_fields_set}
    wished["mode"] = mode
    changes = tuple(
        f"network {there.name} {what}: {now} → {new}"
        for what, new in wished.items()
        if new and new != (now := getattr(there.spec, what))
    )
    return NetworkNeed(request, there, changes)


async def check_cards(
    context: Context, project: str, planned: PlannedVm, vm: Vm | None, declared: Mapping[str, NetworkNeed]
) -> None:
    """Networks are there, or will be, and addresses that were asked for are free, or the VM's own."""
    own = "" if vm is None else vm.uid
    for number, nic in enumerate(wished_nics(planned)):
        asked = f"nics[{number}]"
        if (need := declared.get(nic.network)) is not None and need.there is None:
            if nic.address is not None and need.request.subnet:
                ipam.parse_address(need.request.subnet, nic.address)
            continue
        try:
            network = await find_network(context, project, nic.network)
        except CorralError as error:
            raise replace(error, asked=f"{asked}: {error.asked}", hint=NETWORKS_HINT) from error
        claims = [] if nic.mac is None else [claim_key("mac", "host", mac_of(nic))]
        if nic.address is not None and network.spec.ours:
            ipam.parse_address(network.spec.subnet, nic.address)
            claims.append(claim_key("address", network.uid, nic.address))
        for claim in claims:
            if await context.objects.owner(claim) not in (None, own):
                what = claim.rpartition("/")[2]
                raise CorralError("address-taken", asked, f"another VM has {what}", "choose another one, or none")
