"""Networks of this host: defined, started and with the addresses that VMs hold."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from corral.agent.cache import Cache
from corral.agent.executor import Executor, reservations_in
from corral.agent.foreign_networks import ForeignNetworks
from corral.agent.status import condition
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.base import with_condition
from corral.model.network import Network, NetworkStatus
from corral.network.base import ObservedNetwork
from corral.store.objects import Objects, claim_key

OUTDATED: Final = (
    "its definition has changed, and guests are plugged into it: it runs on as it was, and takes the new definition once "
    "its VMs are off, or with the host's next boot"
)

log = logger("agent.network")


@dataclass
class NetworkKeeper:
    """Ensures each Network object at the start, when it changes, and when a relist finds it missing or stopped."""

    objects: Objects
    cache: Cache
    executor: Executor
    clock: Clock
    ensured: dict[str, int] = field(default_factory=dict)
    """Network uid to the generation that was ensured by this process, wholly."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _asked: set[str] = field(default_factory=set)
    _answering: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return "networks"

    def has_work(self, network: Network) -> bool:
        if network.spec.mode == "libvirt":
            return network.being_deleted
        return network.being_deleted or self.ensured.get(network.uid) != network.generation

    def ask(self, uid: str) -> None:
        """One that was made or changed: seen to at once, without a look at everything."""
        self._asked.add(uid)
        if self._answering is None or self._answering.done():
            self._answering = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        try:
            while self._asked:
                network = self.cache.networks.get(self._asked.pop())
                async with self.turn:
                    if network is not None and self.has_work(network):
                        await self._settle(network)
        except Exception:  # top of a task: logged, and tried again at the next relist
            log.exception("network is not seen to")

    async def sync(self) -> None:
        """Word from the kernel: somebody took a bridge away, or killed who serves addresses on it."""
        if await self.executor.drivers.networks.broken():
            await self.look()

    async def look(self) -> None:
        """All of them; one that fails does not stop the others, and is tried again at the next relist."""
        async with self.turn:
            await self._look()

    async def _look(self) -> None:
        found = await self.executor.drivers.networks.observe_all()
        await ForeignNetworks(self.objects, self.cache, self.clock).sync(found)
        observed = {each.uid: each for each in found}
        for network in list(self.cache.networks.values()):
            if network.spec.mode == "libvirt" and not network.being_deleted:
                await self._note_foreign(network, observed.get(network.uid))
                continue
            there = network.uid in observed and observed[network.uid].active and observed[network.uid].whole
            if not there or self.has_work(network):
                await self._settle(network)

    async def _settle(self, network: Network) -> None:
        """Gone, or as it is wished, or with the reason why not."""
        if network.being_deleted:
            await self._remove(network)
            return
        try:
            await self._ensure(network)
        except CorralError as error:
            log.warning("network is not up", network=network.name, code=error.code, reason=error.reason)
            await self._record(network, error)

    async def _note_foreign(self, network: Network, found: ObservedNetwork | None) -> None:
        """Made elsewhere: it is as it is."""
        asked, name = f"use network {network.name}", network.spec.source
        error = None
        if found is None:
            error = CorralError("network-not-found", asked, "libvirt does not have it any more")
        elif not found.active:
            error = CorralError("network-not-found", asked, "it is off", f"virsh net-start {name}")
        await self._record(network, error)

    async def _remove(self, network: Network) -> None:
        """Unless a VM came onto it while its deletion was written: then it stays, and is wished again."""
        transaction = self.objects.transaction()
        used = any(nic.network_uid == network.uid for vm in self.cache.vms.values() for nic in vm.spec.nics)
        used |= any(
            port.network_uid == network.uid for router in self.cache.routers.values() for port in router.spec.all_ports
        )
        if used:
            transaction.update(network.model_copy(update={"deletion_requested_at": None}))
        else:
            remove = self.executor.drivers.networks.remove(network)
            try:
                await self.executor.bounded(remove, f"remove network {network.name}")
            except CorralError as error:
                log.warning("network cannot be removed", network=network.name, code=error.code, reason=error.reason)
                return
            transaction.delete(network)
            for kept in network.spec.reservations:
                transaction.release(claim_key("mac", "host", kept.mac))
                for address in (kept.address, kept.address6):
                    if address:
                        transaction.release(claim_key("address", network.uid, address))
            self.ensured.pop(network.uid, None)
        try:
            await transaction.commit()
        except CorralError as error:
            if error.code != "precondition-failed":  # somebody wrote it meanwhile: the change wakes us again
                raise

    async def _ensure(self, network: Network) -> None:
        drivers = self.executor.drivers
        whole: list[bool] = []

        async def ensure() -> None:
            whole.append(await drivers.networks.ensure(network, reservations_in(self.cache, network)))

        await self.executor.bounded(ensure(), f"start network {network.name}")
        if whole[0]:
            self.ensured[network.uid] = network.generation
        await self._record(network, None, outdated=not whole[0])

    async def _record(self, network: Network, error: CorralError | None, *, outdated: bool = False) -> None:
        """Onto the network as it is by now: others write conditions of it, too. A changed one is seen to anew."""
        for last in (False, True):
            status = self._status(network, error, outdated=outdated)
            if status == network.status:
                return
            transaction = self.objects.transaction()
            changed = network.model_copy(update={"status": status})
            transaction.update(changed)
            try:
                committed = await transaction.commit(durable=False)
            except CorralError as conflict:
                newest = await self.objects.get(Network, network.uid)
                if last or conflict.code != "precondition-failed" or newest is None:
                    raise
                if newest.generation != network.generation:
                    return  # its change wakes us
                network = newest
            else:
                self.cache.put(changed.model_copy(update={"revision": committed.revision}))
                return

    def _status(self, network: Network, error: CorralError | None, *, outdated: bool) -> NetworkStatus:
        old, now = network.status, self.clock.now()
        ready = ("active", "") if error is None else (error.code, error.reason)
        conditions = with_condition(old.conditions, condition("Ready", error is None, *ready, now))
        if error is None and (outdated or any(found.type == "Outdated" for found in conditions)):
            why = ("guests-connected", OUTDATED) if outdated else ("as-defined", "")
            conditions = with_condition(conditions, condition("Outdated", outdated, *why, now))
        generation = network.generation if error is None else old.observed_generation
        return NetworkStatus(active=error is None, observed_generation=generation, conditions=conditions)
