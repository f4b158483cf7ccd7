"""Networks: read, made on a free subnet or a bridge of the host's, and deleted while no VM is on them."""

import asyncio
from typing import Final

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.network import Network, NetworkMode, NetworkSpec
from corral.model.network_requests import CreateNetworkRequest
from corral.model.requests import ListRequest
from corral.model.vm import Vm
from corral.names import new_uid, parse_name
from corral.network.subnet_turn import subnet_turn
from corral.network.subnets import choose_subnet
from corral.services import listing
from corral.services.access import audited, authorize, commit
from corral.services.bridges import check_bridge
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.settings import subnet_lock

DEFAULT_NETWORK: Final = "default"
DOMAIN: Final = "internal"
# A network that is made, or removed, is waited for so long; the agent goes on trying.
WAIT_S: Final = 15.0
LOOK_S: Final = 0.05


class NetworkService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Network, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Network, name)

    async def create(self, caller: Caller, project: str, request: CreateNetworkRequest) -> Network:
        """Answered when it is up, or with what keeps it from that in its conditions."""
        context, action, asked = self._context, "network.create", f"make network {request.name[:64]!r}"
        await authorize(context, caller, project, action, request.name)
        if request.bridge is not None:
            await authorize(context, caller, DEFAULT_PROJECT, "host.use-bridge", request.name)
        async with audited(context, caller, project, action, request.name):
            parse_name(request.name, "network name")
            mode = mode_of(request, asked)
            # Nobody else chooses a subnet, or looks at the bridges, until this one has taken its own.
            async with subnet_turn(subnet_lock()):
                if await context.objects.find(Network, project, request.name) is not None:
                    raise CorralError("name-taken", asked, "there is a network of this name", "choose another name")
                uid = new_uid()
                spec = await (self._on_bridge(request, asked) if mode == "bridge" else self._own(request, mode, uid))
                network = Network(
                    project=project,
                    name=request.name,
                    uid=uid,
                    created_at=context.clock.now(),
                    labels=request.labels,
                    spec=spec,
                )
                transaction = context.objects.transaction()
                transaction.create(network)
                await commit(context, transaction, caller, project, action, request.name, f"{mode} {spec.subnet}")
                return await self._made(network)

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        """While no VM has a card on it. The agent removes it, and takes a mark back that came too late."""
        context, action, asked = self._context, "network.delete", f"delete network {name[:64]!r}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            network = await context.objects.require(Network, project, name)
            if project == DEFAULT_PROJECT and name == DEFAULT_NETWORK:
                hint = "delete the VMs on it instead"
                raise CorralError("network-in-use", asked, "it is the default one: VMs are on it unless told", hint)
            await self._check_unused(network, asked)
            if not network.being_deleted:
                network = network.model_copy(update={"deletion_requested_at": context.clock.now()})
                transaction = context.objects.transaction()
                transaction.update(network)
                await commit(context, transaction, caller, project, action, name)
            await self._gone(network, asked)

    # ---- what it will be -------------------------------------------------------------------------------------------

    async def _own(self, request: CreateNetworkRequest, mode: NetworkMode, uid: str) -> NetworkSpec:
        """On a subnet that overlaps with nothing that the host reaches, nor with another network's."""
        networks = self._context.networks
        used = [known.subnet for known in await networks.observe_all() if known.subnet]
        used += [known.spec.subnet for known in await self._context.objects.list(Network) if known.spec.subnet]
        subnet = choose_subnet([*used, *await networks.used_subnets()], request.subnet)
        domain = request.domain.rstrip(".") or f"{request.name}.{DOMAIN}"
        return NetworkSpec(mode=mode, subnet=subnet, domain=domain, bridge=f"crl{uid[:8]}")

    async def _on_bridge(self, request: CreateNetworkRequest, asked: str) -> NetworkSpec:
        known = {network.spec.bridge: network for network in await self._context.objects.list(Network)}
        if (other := known.get(request.bridge or "")) is not None:
            reason = f"network {other.name!r} has the bridge {request.bridge}"
            raise CorralError("name-taken", asked, reason, f"--network {other.name}")
        await check_bridge(self._context, str(request.bridge), asked)
        return NetworkSpec(mode="bridge", bridge=str(request.bridge))

    # ---- waiting for the agent -------------------------------------------------------------------------------------

    async def _made(self, network: Network) -> Network:
        """As the agent has left it: up, or with the reason why not."""
        found = network
        for _ in range(round(WAIT_S / LOOK_S)):
            found = await self._context.objects.get(Network, network.uid) or network
            if found.status.conditions:
                break
            await asyncio.sleep(LOOK_S)
        return found

    async def _gone(self, network: Network, asked: str) -> None:
        for _ in range(round(WAIT_S / LOOK_S)):
            found = await self._context.objects.get(Network, network.uid)
            if found is None:
                return
            if not found.being_deleted:
                await self._check_unused(found, asked)
                raise CorralError("network-in-use", asked, "a VM came onto it in that moment", "try again")
            await asyncio.sleep(LOOK_S)
        reason = "the hypervisor has not removed it yet; that is tried on"
        raise CorralError("hypervisor-timeout", asked, reason, f"corral network show {network.name}")

    async def _check_unused(self, network: Network, asked: str) -> None:
        on_it = sorted(
            vm.name
            for vm in await self._context.objects.list(Vm)
            if any(nic.network_uid == network.uid for nic in vm.spec.nics)
        )
        if on_it:
            reason = f"VMs are on it: {', '.join(on_it[:5])}{' …' if len(on_it) > 5 else ''}"
            hint = "delete them, or take their cards out: corral nic remove VM CARD"
            raise CorralError("network-in-use", asked, reason, hint, {"vms": len(on_it)})


def mode_of(request: CreateNetworkRequest, asked: str) -> NetworkMode:
    """What it will be. Raises `invalid-argument` for what contradicts itself."""
    mode = request.mode or ("bridge" if request.bridge is not None else "nat")
    if mode == "bridge" and request.bridge is None:
        raise CorralError("invalid-argument", asked, "mode bridge needs a bridge of the host's", "--bridge br0")
    if mode != "bridge" and request.bridge is not None:
        raise CorralError("invalid-argument", asked, f"a network of mode {mode} makes its own bridge", "--mode bridge")
    if mode == "bridge" and (request.subnet or request.domain):
        reason = "addresses and names on a bridge of the host's come from whoever serves them there"
        raise CorralError("invalid-argument", asked, reason, "leave subnet and domain out")
    return mode
