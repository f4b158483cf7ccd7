"""What hangs on VMs that are gone: forwards go with them, floating addresses and balancers let go of them."""

from corral.agent.cache import Cache
from corral.errors import CorralError
from corral.model.address import FloatingAddress
from corral.model.balancer import Balancer
from corral.model.forward import Forward
from corral.model.vm import Vm
from corral.store.objects import Objects, Transaction, host_port_claim


async def tidy(objects: Objects, cache: Cache) -> None:
    """Each in its own transaction, on condition that it is unchanged."""
    gone = await _gone(objects, cache)
    if not gone:
        return
    for forward in list(cache.forwards.values()):
        if forward.spec.vm_uid in gone:
            transaction = objects.transaction()
            transaction.delete(forward)
            transaction.release(host_port_claim(forward.spec.protocol, forward.spec.host_port))
            if await committed(transaction):
                cache.forget(Forward, forward.uid)
    for address in list(cache.addresses.values()):
        if address.spec.vm_uid in gone:
            spec = address.spec.model_copy(update={"vm": None, "vm_uid": None})
            await _update(objects, cache, address.model_copy(update={"spec": spec}))
    for balancer in list(cache.balancers.values()):
        left = tuple(target for target in balancer.spec.targets if target.vm_uid not in gone)
        if left != balancer.spec.targets:
            spec_left = balancer.spec.model_copy(update={"targets": left})
            await _update(objects, cache, balancer.model_copy(update={"spec": spec_left}))


async def _gone(objects: Objects, cache: Cache) -> frozenset[str]:
    named = {one.spec.vm_uid for one in cache.forwards.values()} | {one.spec.vm_uid for one in cache.addresses.values()}
    named |= {target.vm_uid for one in cache.balancers.values() for target in one.spec.targets}
    missing = [uid for uid in named if uid is not None and uid not in cache.vms]
    # One that was made a moment ago may not be known here yet.
    return frozenset([uid for uid in missing if await objects.get(Vm, uid) is None])


async def _update(objects: Objects, cache: Cache, changed: FloatingAddress | Balancer) -> None:
    changed = changed.model_copy(update={"generation": changed.generation + 1})
    transaction = objects.transaction()
    transaction.update(changed)
    try:
        committed = await transaction.commit()
    except CorralError as error:
        if error.code != "precondition-failed":  # it was changed meanwhile: that wakes us again
            raise
    else:
        cache.put(changed.model_copy(update={"revision": committed.revision}))


async def committed(transaction: Transaction) -> bool:
    """False: somebody changed it meanwhile, which wakes us again."""
    try:
        await transaction.commit()
    except CorralError as error:
        if error.code != "precondition-failed":
            raise
        return False
    return True
