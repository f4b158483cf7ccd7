"""What was made for a request and nobody asks for any more: points in time, and templates that only pass by."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from corral.agent.cache import Cache
from corral.agent.operations import requested
from corral.errors import CorralError
from corral.log import logger
from corral.model.operation import DeleteSnapshot, DeleteTemplate, Operation
from corral.model.snapshot import Snapshot
from corral.model.template import Template
from corral.model.vm import Vm
from corral.store.objects import Objects

PASSING_S: Final = 300.0
"""A request makes its forks at once when their template is frozen."""

log = logger("agent.hidden-points")


async def forget_abandoned(objects: Objects, cache: Cache, now: datetime) -> None:
    """At the daemon's start, before anybody can have asked for one: a request that took one ended with the daemon
    before. Its VM's own operation sees to its files, after the one that may still be taking it."""
    for snapshot in list(_abandoned(cache)):
        vm = cache.vms[snapshot.spec.vm_uid]
        transaction = objects.transaction()
        operation = forgetting(vm, snapshot.uid, "service:agent", "", now)
        transaction.create(operation)
        transaction.require(snapshot)
        committed = await transaction.commit()
        cache.put(operation.model_copy(update={"revision": committed.revision}))
        log.info("a point in time that nobody asks for is forgotten", vm=vm.name, snapshot=snapshot.uid)


async def forget_passing(objects: Objects, cache: Cache, now: datetime, *, first: bool) -> None:
    """Templates of live forks whose request ended before it could say that they may go, with the daemon before (`first`)
    or because the store was away. They wait for their forks."""
    for template in [found for found in cache.templates.values() if found.spec.passing and not found.being_deleted]:
        since = template.status.taken_at or template.created_at
        if not first and (not template.status.ready or now - since < timedelta(seconds=PASSING_S)):
            continue
        going = template.model_copy(update={"deletion_requested_at": now, "generation": template.generation + 1})
        removal = requested(going, DeleteTemplate(), "service:agent", "", now)
        transaction = objects.transaction()
        transaction.update(going)
        transaction.create(removal)
        try:
            revision = (await transaction.commit()).revision
        except CorralError as error:
            if error.code != "precondition-failed":
                raise
            await cache.refresh(Template, template.uid)  # it is being frozen: at the next look
            continue
        for written in (going, removal):
            cache.put(written.model_copy(update={"revision": revision}))
        log.info("a template of live forks goes", template=template.name)


def _abandoned(cache: Cache) -> Iterable[Snapshot]:
    kept = {template.spec.snapshot_uid for template in cache.templates.values()}
    for snapshot in cache.snapshots.values():
        vm = cache.vms.get(snapshot.spec.vm_uid)
        if not snapshot.spec.hidden or snapshot.uid in kept:
            continue
        if vm is not None and not vm.being_deleted and not is_forgotten(cache, vm, snapshot.uid):
            yield snapshot


def is_forgotten(cache: Cache, vm: Vm, snapshot_uid: str) -> bool:
    """An operation that does it is under way."""
    intents = (operation.spec.intent for operation in cache.unfinished(vm.uid))
    return any(isinstance(intent, DeleteSnapshot) and intent.snapshot_uid == snapshot_uid for intent in intents)


def forgetting(vm: Vm, snapshot_uid: str, requested_by: str, request_id: str, now: datetime) -> Operation:
    return requested(vm, DeleteSnapshot(snapshot_uid=snapshot_uid), requested_by, request_id, now)
