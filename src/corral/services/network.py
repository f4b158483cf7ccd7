"""Networks: read, made on a free subnet or a bridge of the host's, and deleted while no VM is on them."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT, ConditionStatus
from corral.model.network import Network, NetworkSpec
from corral.model.network_parts import GatewayAt, MakeableMode, StaticReservation
from corral.model.network_requests import ChangeNetworkRequest, CreateNetworkRequest
from corral.model.requests import ListRequest
from corral.model.router import Router
from corral.model.vm import Vm
from corral.names import new_uid, parse_name
from corral.network.subnet_turn import subnet_turn
from corral.network.subnets import choose_subnet, choose_subnet6
from corral.services import listing, rules
from corral.services.access import audited, authorize, commit
from corral.services.bridges import check_bridge
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX
from corral.services.context import Context
from corral.services.documents import Document, Listing
from corral.services.network_rules import check_card, mode_of, reservation_claims, served, settled
from corral.services.promises import check_network
from corral.services.subnet_room import check_opened, subnets_known, subnets_met
from corral.settings import subnet_lock
from corral.store.objects import Transaction

DEFAULT_NETWORK: Final = "default"
DOMAIN: Final = "internal"
_CHANGEABLE: Final = (
    *("mode", "mtu", "dns", "dhcp_first", "dhcp_last", "dhcp_options", "dhcp_relay", "reservations", "host_names"),
    *("bandwidth_in", "bandwidth_out"),
)
# A network that is made, or removed, is waited for so long; the agent goes on trying.
WAIT_S: Final = 15.0
LOOK_S: Final = 0.01


class NetworkService:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._cards = asyncio.Lock()

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Network, request)

    async def get(self, caller: Caller, project: str, name: str) -> Document:
        return await listing.get_object(self._context, caller, project, Network, name)

    async def create(self, caller: Caller, project: str, request: CreateNetworkRequest) -> Network:
        """Answered when it is up, or with what keeps it from that in its conditions."""
        context, action, asked = self._context, "network.create", f"make network {request.name[:64]!r}"
        await authorize(context, caller, project, action, request.name)
        if request.bridge is not None or request.nic is not None:
            await authorize(context, caller, DEFAULT_PROJECT, "host.use-bridge", request.name)
        async with audited(context, caller, project, action, request.name):
            parse_name(request.name, "network name")
            mode = mode_of(request, asked)
            # Nobody else chooses a subnet, or looks at the cards, until this one has taken its own.
            async with self._cards if mode in ("bridge", "macvtap") else subnet_turn(subnet_lock()):
                if await context.objects.find(Network, project, request.name) is not None:
                    raise CorralError("name-taken", asked, "there is a network of this name", "choose another name")
                uid = new_uid()
                spec = await self._spec(request, mode, uid, asked)
                network = Network(
                    project=project,
                    name=request.name,
                    uid=uid,
                    created_at=context.clock.now(),
                    labels=request.labels,
                    spec=spec,
                )
                await check_network(context, network, asked)
                transaction = context.objects.transaction()
                transaction.create(network)
                _hold(transaction, network.uid, (), spec.reservations)
                detail = f"{mode} {spec.subnet}"
                with _taken_named(asked):
                    await commit(context, transaction, caller, project, action, request.name, detail)
                return await self._made(network)

    async def change(
        self,
        caller: Caller,
        project: str,
        name: str,
        request: ChangeNetworkRequest,
        *,
        if_revision: int | None = None,
    ) -> Network:
        """Answered when it runs so, or says why it does not yet: in its conditions."""
        context, action, asked = self._context, "network.update", f"change network {name[:64]!r}"
        await authorize(context, caller, project, action, name)
        reaches = any(each is not None for each in (request.mode, request.ipv6, request.subnet6))
        async with audited(context, caller, project, action, name):
            for _ in range(ATTEMPTS_MAX):
                # Nobody chooses a subnet, or joins networks, while this one's reach or its own changes.
                async with subnet_turn(subnet_lock()) if reaches else nullcontext():
                    now = await context.objects.require(Network, project, name)
                    rules.check_revision(now, if_revision)
                    changed = await self._changed(now, request, asked)
                    if changed is None:
                        return now
                    await self._check_names(now, changed, asked)
                    await check_network(context, changed, asked)
                    if changed.spec.mode != now.spec.mode:
                        await check_opened(context, changed, asked)
                    transaction = context.objects.transaction()
                    transaction.update(changed)
                    _hold(transaction, now.uid, now.spec.reservations, changed.spec.reservations)
                    try:
                        with _taken_named(asked):
                            await commit(context, transaction, caller, project, action, name)
                    except CorralError as error:
                        if error.code != "precondition-failed":
                            raise
                        continue
                return await self._made(changed)
            raise CorralError("wrong-state", asked, "others are changing it all the time", "try again")

    async def delete(self, caller: Caller, project: str, name: str) -> None:
        """While no VM has a card on it. The agent removes it, and takes a mark back that came too late."""
        context, action, asked = self._context, "network.delete", f"delete network {name[:64]!r}"
        await authorize(context, caller, project, action, name)
        async with audited(context, caller, project, action, name):
            network = await context.objects.require(Network, project, name)
            _check_not_foreign(network, asked)
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

    async def _spec(self, request: CreateNetworkRequest, mode: MakeableMode, uid: str, asked: str) -> NetworkSpec:
        bandwidth = {"bandwidth_in": request.bandwidth_in, "bandwidth_out": request.bandwidth_out}
        if request.nic is not None:
            spec = await self._over_card(request, mode, uid, asked)
        elif mode == "bridge":
            spec = await self._on_bridge(request, asked)
        else:
            spec = await self._own(request, mode, uid, asked)
        return spec.model_copy(update=bandwidth)

    async def _own(self, request: CreateNetworkRequest, mode: MakeableMode, uid: str, asked: str) -> NetworkSpec:
        """On a subnet that overlaps with nothing that the host reaches, nor with another network's; where a router is the
        gateway, on the one that is asked for."""
        known = await subnets_known(self._context)
        used = known if not request.subnet else await self._in_the_way(request.gateway_at)
        used6 = known if not request.subnet6 else await self._in_the_way(request.gateway_at)
        domain = request.domain.rstrip(".") or f"{request.name}.{DOMAIN}"
        ipv6 = request.ipv6 or ("dhcp" if request.subnet6 else "")
        spec = NetworkSpec.model_validate(
            {
                "mode": mode,
                "subnet": choose_subnet(used, request.subnet),
                "subnet6": choose_subnet6(used6, request.subnet6) if ipv6 else "",
                "ipv6": ipv6,
                "gateway_at": request.gateway_at,
                "domain": domain,
                "mtu": request.mtu or 0,
                "bridge": f"crl{uid[:8]}",
                **served(request),
            }
        )
        spec = settled(spec, asked)
        await self._context.networks.check_settings(spec)
        return spec

    async def _in_the_way(self, gateway_at: GatewayAt) -> dict[str, str]:
        """Of a subnet that is asked for: nothing, where the host has nothing to do with it."""
        return {} if gateway_at == "router" else await subnets_met(self._context)

    async def _over_card(self, request: CreateNetworkRequest, mode: MakeableMode, uid: str, asked: str) -> NetworkSpec:
        """A bridge of ours over a card of the host's, or macvtap on it."""
        nic, vlan = str(request.nic), request.vlan
        check_card(await self._context.networks.cards(), nic, mode, vlan, asked)
        if vlan is not None and not await self._context.networks.has_vlans():
            reason = "this kernel does not tag frames (CONFIG_VLAN_8021Q)"
            raise CorralError("unsupported", asked, reason, "leave --vlan out, or tag on the switch")
        there = await self._context.objects.list(Network)
        same = (one for one in there if one.spec.nic == nic and one.spec.vlan == (vlan or 0) and one.spec.mode == mode)
        if (other := next(same, None)) is not None:
            reason = f"network {other.name!r} is on {nic} already"
            raise CorralError("name-taken", asked, reason, f"--network {other.name}")
        bridge = f"crl{uid[:8]}" if mode == "bridge" else ""
        return NetworkSpec(mode=mode, bridge=bridge, nic=nic, vlan=vlan or 0)

    async def _changed(self, now: Network, request: ChangeNetworkRequest, asked: str) -> Network | None:
        """None where it is so already."""
        _check_not_foreign(now, asked)
        given = {each: value for each in _CHANGEABLE if (value := getattr(request, each)) is not None}
        if request.boot is not None:
            given["boot"] = request.boot or None
        if request.domain is not None:
            given["domain"] = request.domain.rstrip(".") or f"{now.name}.{DOMAIN}"
        unsuited = set(given) - {"bandwidth_in", "bandwidth_out"}
        if not now.spec.ours and unsuited:
            reason = f"{', '.join(sorted(unsuited))}: others serve a network of mode {now.spec.mode}"
            raise CorralError("invalid-argument", asked, reason, "make a network of your own: corral network create")
        ipv6 = {each: value for each in ("ipv6", "subnet6") if (value := getattr(request, each)) is not None}
        if ipv6:
            given |= await self._changed6(now, ipv6, asked)
        spec = NetworkSpec.model_validate({**dict(now.spec), **given})
        if not spec.hosted and spec.ours and spec.mode != "isolated":
            reason = "a router is its gateway: it decides who gets out and in"
            raise CorralError(
                "invalid-argument", asked, reason, "corral router set ROUTER --uplink nat, routed or none"
            )
        if spec.ours and spec != now.spec:
            spec = settled(spec, asked)
            await self._context.networks.check_settings(spec)
        labels = now.labels if request.labels is None else request.labels
        if spec == now.spec and labels == now.labels:
            return None
        generation = now.generation + (spec != now.spec)
        return now.model_copy(update={"spec": spec, "labels": labels, "generation": generation})

    async def _changed6(self, now: Network, wish: dict[str, str], asked: str) -> dict[str, object]:
        """Cards keep their addresses for life: IPv6 comes and goes while there are none."""
        ipv6 = wish.get("ipv6", now.spec.ipv6) or ("dhcp" if wish.get("subnet6") else "")
        same = wish.get("subnet6", now.spec.subnet6) == now.spec.subnet6
        if ipv6 == now.spec.ipv6 and (same or not ipv6):
            return {}
        await self._check_unused(now, asked)
        if not ipv6:
            return {"ipv6": "", "subnet6": ""}
        kept = now.spec.subnet6 if same else ""
        asked6 = bool(wish.get("subnet6"))
        used = await (self._in_the_way(now.spec.gateway_at) if asked6 else subnets_known(self._context))
        return {"ipv6": ipv6, "subnet6": kept or choose_subnet6(used, wish.get("subnet6", ""))}

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
            status = found.status
            failed = any(each.type == "Ready" and each.status is ConditionStatus.FALSE for each in status.conditions)
            if status.conditions and (failed or status.observed_generation >= network.generation):
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

    async def _check_names(self, now: Network, changed: Network, asked: str) -> None:
        """A name is reserved for nobody whom it is found at already."""
        new = {kept.name for kept in changed.spec.reservations} - {kept.name for kept in now.spec.reservations}
        for vm in await self._context.objects.list(Vm) if new else ():
            if vm.name in new and any(nic.network_uid == now.uid for nic in vm.spec.nics):
                reason = f"VM {vm.name} is on the network under that name"
                raise CorralError("name-taken", asked, reason, "choose another name: the VM has its address reserved")

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
        routers = await self._context.objects.list(Router)
        joined = [one.name for one in routers if any(port.network_uid == network.uid for port in one.spec.all_ports)]
        if joined:
            reason = f"router {joined[0]} is on it"
            raise CorralError(
                "network-in-use", asked, reason, f"corral router set {joined[0]} --disconnect {network.name}"
            )


def _check_not_foreign(network: Network, asked: str) -> None:
    if network.spec.mode == "libvirt":
        reason = "it was made elsewhere, and Corral leaves it as it is"
        raise CorralError("unsupported", asked, reason, f"virsh net-edit {network.spec.source}")


def _hold(
    transaction: Transaction, uid: str, before: Iterable[StaticReservation], after: Iterable[StaticReservation]
) -> None:
    """Claim what the reservations of a network take, and let go of what they took before."""
    old, new = reservation_claims(uid, before), reservation_claims(uid, after)
    for key in sorted(old - new):
        transaction.release(key)
    for key in sorted(new - old):
        transaction.claim(key, uid)


@contextmanager
def _taken_named(asked: str) -> Iterator[None]:
    """A claim that somebody else has is a wish that cannot be granted, not a lost race."""
    try:
        yield
    except CorralError as error:
        key = str(error.context.get("key", ""))
        if error.code == "precondition-failed" and key.startswith("/claims/"):
            what = key.rpartition("/")[2]
            raise CorralError(
                "address-taken", asked, f"a VM, or another reservation, has {what}", "choose another"
            ) from error
        raise
