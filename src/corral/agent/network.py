"""Networks of this host: defined, started and with the addresses that VMs hold."""

from dataclasses import dataclass, field

from corral.agent.cache import Cache
from corral.agent.executor import Executor, reservations_in
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.base import Condition, ConditionStatus
from corral.model.network import Network, NetworkStatus
from corral.store.objects import Objects

log = logger("agent.network")


@dataclass
class NetworkKeeper:
    """Ensures each Network object at the start, when it changes, and when a relist finds it missing or stopped."""

    objects: Objects
    cache: Cache
    executor: Executor
    clock: Clock
    ensured: dict[str, int] = field(default_factory=dict)
    """Network uid to the generation that was ensured by this process."""

    async def sync(self) -> None:
        """All of them; one that fails does not stop the others, and is tried again at the next relist."""
        observed = {found.uid: found for found in await self.executor.drivers.networks.observe_all()}
        for network in list(self.cache.networks.values()):
            there = network.uid in observed and observed[network.uid].active
            if there and self.ensured.get(network.uid) == network.generation:
                continue
            try:
                await self._ensure(network)
            except CorralError as error:
                log.warning("network is not up", network=network.name, code=error.code, reason=error.reason)
                await self._record(network, error)

    async def _ensure(self, network: Network) -> None:
        drivers = self.executor.drivers
        call = drivers.networks.ensure(network, reservations_in(self.cache, network))
        await self.executor.bounded(call, f"start network {network.name}")
        self.ensured[network.uid] = network.generation
        await self._record(network, None)

    async def _record(self, network: Network, error: CorralError | None) -> None:
        active = error is None
        old = network.status
        if active and old.active and old.observed_generation == network.generation:
            return
        condition = Condition(
            type="Ready",
            status=ConditionStatus.TRUE if active else ConditionStatus.FALSE,
            reason="active" if error is None else error.code,
            message="" if error is None else error.reason,
            since=self.clock.now(),
        )
        generation = network.generation if active else old.observed_generation
        status = NetworkStatus(active=active, observed_generation=generation, conditions=(condition,))
        transaction = self.objects.transaction()
        changed = network.model_copy(update={"status": status})
        transaction.update(changed)
        committed = await transaction.commit(durable=False)
        self.cache.put(changed.model_copy(update={"revision": committed.revision}))
