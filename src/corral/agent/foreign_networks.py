"""Libvirt networks that were made elsewhere: known by `libvirt:NAME`, used by VMs, and left as they are."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from corral.agent.cache import Cache
from corral.clock import Clock
from corral.errors import CorralError
from corral.log import logger
from corral.model.network import Network, NetworkSpec
from corral.model.network_parts import FOREIGN
from corral.network.base import ObservedNetwork
from corral.store.objects import Objects

# Other installations of Corral on this host have theirs.
_CORRALS: Final = "corral-"
_NAMEABLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}")
_log: Final = logger("agent.network")


@dataclass
class ForeignNetworks:
    """Writes down what there is; forgets what is gone and no VM names any more."""

    objects: Objects
    cache: Cache
    clock: Clock

    async def sync(self, observed: Iterable[ObservedNetwork]) -> None:
        seen = {
            found.uid: found
            for found in observed
            if not found.ours and not found.name.startswith(_CORRALS) and _NAMEABLE.fullmatch(found.name)
        }
        known = {uid: one for uid, one in self.cache.networks.items() if one.spec.mode == "libvirt"}
        for uid, found in seen.items():
            there = known.get(uid)
            if there is None and uid not in self.cache.networks:
                await self._write(_network(found, self.clock), new=True)
            elif there is not None and there.spec != _spec(found):
                update = {"spec": _spec(found), "generation": there.generation + 1}
                await self._write(there.model_copy(update=update), new=False)
        for uid in known.keys() - seen.keys():
            if not any(nic.network_uid == uid for vm in self.cache.vms.values() for nic in vm.spec.nics):
                await self._forget(known[uid])

    async def _write(self, network: Network, *, new: bool) -> None:
        transaction = self.objects.transaction()
        (transaction.create if new else transaction.update)(network)
        try:
            committed = await transaction.commit()
        except CorralError as error:
            if error.code != "precondition-failed":  # one of its name is still known; the next look sees both
                raise
            return
        self.cache.put(network.model_copy(update={"revision": committed.revision}))
        _log.info("network of somebody else's", network=network.name, new=new)

    async def _forget(self, network: Network) -> None:
        transaction = self.objects.transaction()
        transaction.delete(network)
        try:
            await transaction.commit()
        except CorralError as error:
            if error.code != "precondition-failed":
                raise


def _network(found: ObservedNetwork, clock: Clock) -> Network:
    return Network(name=f"{FOREIGN}{found.name}", uid=found.uid, created_at=clock.now(), spec=_spec(found))


def _spec(found: ObservedNetwork) -> NetworkSpec:
    return NetworkSpec(
        mode="libvirt",
        source=found.name,
        bridge=found.bridge,
        subnet=found.subnet,
        subnet6=found.subnet6,
        domain=found.domain,
    )
