"""Operations whose VM is gone: asked for in the instant in which it went, so that nobody ended them with it."""

from corral.agent.cache import Cache
from corral.agent.operations import Progress, ended, write_end
from corral.agent.queue import cancelled
from corral.agent.view import Ending
from corral.clock import Clock
from corral.model.operation import Operation, OperationState, Problem
from corral.model.vm import Vm
from corral.store.objects import Objects


def is_bereft(cache: Cache, uid: str) -> bool:
    return uid not in cache.vms and bool(cache.unfinished(uid))


async def end_bereft(objects: Objects, cache: Cache, progress: Progress, clock: Clock, uid: str) -> None:
    """End what waits for a VM that the store does not have: the cache may only be behind."""
    if not is_bereft(cache, uid) or await cache.refresh(Vm, uid) is not None:
        return
    for operation in cache.unfinished(uid):
        await cache.refresh(Operation, operation.uid)
    now = clock.now()
    transaction = objects.transaction()
    endings = []
    for operation in cache.unfinished(uid):
        progress.discard(operation.uid)
        spec = operation.spec
        problem = Problem(
            code="vm-not-found",
            asked=f"{spec.intent.verb} VM {spec.target_name!r}",
            reason="it was deleted before this could begin",
        )
        ending = (
            Ending(operation, OperationState.CANCELLED)
            if cancelled(operation)
            else Ending(operation, OperationState.FAILED, problem)
        )
        final = ended(ending, now, (), now)
        if write_end(transaction, cache, final):
            endings.append(final)
    if not endings:
        return
    committed = await transaction.commit()
    for final in endings:
        cache.put(final.model_copy(update={"revision": committed.revision}))
