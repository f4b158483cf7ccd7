"""From what is wished and what was seen to what is to be done next. Pure: the same view, the same plan.

The plan is level-triggered: it never continues a former one. A crash at any instant only means that the next look
sees a world in which some of the steps are already done.
"""

from corral.agent.definition import recovered_nics, recovered_volumes
from corral.agent.plan_disks import LOOK_AGAIN_S, beside, plan_disks, plan_switched, removal_of_copy
from corral.agent.plan_layers import OBJECTS_AT_ONCE, leftovers, plan_tidying, removal_of
from corral.agent.plan_power import plan_news, plan_power
from corral.agent.plan_snapshot import begun_heads, plan_clock, plan_in_time
from corral.agent.queue import Queue, cancelled, sorted_operations, superseded_endings
from corral.agent.steps import (
    ApplyLive,
    Connect,
    CopyVolume,
    Define,
    Destroy,
    ForkFrom,
    GrowVolume,
    Introduce,
    MakeVolume,
    PlugCards,
    Release,
    RemoveSeed,
    RemoveTraces,
    RemoveVolume,
    Rename,
    Reserve,
    SetMetadata,
    Step,
    Undefine,
    WriteSeed,
)
from corral.agent.view import Ending, Plan, Settle, View, Wait, Writes
from corral.model.base import ConditionStatus
from corral.model.operation import AdoptVm, CreateVm, DeleteVm, Operation, OperationState, Problem, UpdateVm
from corral.model.vm import RECOVERED_ANNOTATION
from corral.model.volume import Volume


def plan(view: View) -> Plan:
    """What to do about one VM."""
    queue = sorted_operations(view.operations)
    if (found := plan_switched(view)) is not None:
        return found
    if view.vm.being_deleted:
        return _plan_delete(view, queue)
    if queue.create is not None and (queue.create.status.error is not None or cancelled(queue.create)):
        return plan_undo(view, queue, queue.create)
    if (problem := _refusal(view, queue)) is not None:
        return _plan_refusal(view, queue, problem)
    return plan_disks(view, queue) or beside(view, queue, _plan_wishes(view, queue))


def _plan_wishes(view: View, queue: Queue) -> Plan:
    """All but the work on disks, which goes on beside it."""
    if (found := plan_clock(view, queue) or plan_in_time(view, queue) or _plan_fork(view, queue)) is not None:
        return found
    existence = _plan_existence(view, redefine=_is_reset(queue))
    if existence and queue.create is None and queue.power is None:
        return plan_news(view, queue) or Plan(existence, again=True)
    return plan_tidying(view, queue, plan_power(view, queue, existence, drifted=_drifted(view)))


# ---- whose it is ------------------------------------------------------------------------------------------------


def _refusal(view: View, queue: Queue) -> Problem | None:  # noqa: PLR0911  (a decision table)
    """Why this VM's domain must not be touched, if it must not."""
    vm, domain = view.vm, view.domain
    adopting = any(isinstance(operation.spec.intent, AdoptVm) for operation in queue.document)
    asked = f"manage {vm.name}"
    if domain is None:
        if not (vm.spec.adopted or adopting):
            return None
        return Problem(code="domain-not-found", asked=asked, reason="its domain, made elsewhere, is gone")
    if domain.metadata is None:
        if adopting or view.ours:
            return None
        return Problem(
            code="domain-not-ours", asked=asked, reason="a domain with its UUID is there and is not Corral's"
        )
    if domain.metadata.installation_id != view.installation_id:
        return Problem(code="domain-not-ours", asked=asked, reason="its domain belongs to another Corral installation")
    if vm.placement is not None and domain.metadata.epoch > vm.placement.epoch:
        reason = f"its domain was placed by a newer decision (epoch {domain.metadata.epoch})"
        return Problem(code="domain-not-ours", asked=asked, reason=reason)
    return None


def _plan_refusal(view: View, queue: Queue, problem: Problem) -> Plan:
    """Nothing is touched; whoever waits is told. An adoption that found no domain takes its object back."""
    endings = (
        *superseded_endings(queue),
        *(
            Ending(o, OperationState.FAILED, problem)
            for o in (*queue.declarative, *queue.imperative)
            if not _begun(view, o)
        ),
    )
    adopting = any(isinstance(operation.spec.intent, AdoptVm) for operation in queue.document)
    if adopting or queue.create is not None:
        kept = frozenset(uid for uid, volume in view.volumes.items() if volume.status.ready)
        return Plan(settle=Settle(endings=endings, forget=True, kept=kept))
    wait = Wait(view.now_s + LOOK_AGAIN_S, f"waiting: {problem.code}") if queue.disks else None
    return Plan(settle=Settle(endings=endings, refused=problem), wait=wait)


def _begun(view: View, operation: Operation) -> bool:
    """On a point in time: the domain may be on new heads already, which only its own end may record."""
    return bool(begun_heads(view, operation))


# ---- there at all -----------------------------------------------------------------------------------------------


def _plan_existence(view: View, *, redefine: bool) -> tuple[Step, ...]:
    """Disks, seed, reservations and the domain's document, as far as they are missing or old."""
    vm, domain = view.vm, view.domain
    steps: tuple[Step, ...] = tuple(
        _making(view, disk.volume_uid)
        for disk in vm.spec.disks
        if disk.volume_uid is not None and _unmade(view, disk.volume_uid)
    )
    steps += _abandoned(view)
    if domain is None:
        return (*steps, *_seed(view), *_reservations(view), Define())
    as_wished = vm.spec.adopted or domain.definition_hash in view.wanted_hashes
    # libvirt renames no domain that runs, nor one whose memory is saved.
    renamed = domain.name != vm.domain_name and not view.active and not domain.has_managed_save
    if domain.metadata is None or domain.metadata.spec_json != view.wanted_json or (redefine and not as_wished):
        steps += (Rename(),) if renamed else ()
        return (*steps, *_retired(view), *_new_reservations(view), *_redefinition(view, redefine, as_wished))
    if renamed:
        return (*steps, Rename())
    if not domain.persistent and not vm.spec.adopted:
        return (*steps, Define())
    if view.active and as_wished and domain.live_spec_json != view.wanted_json:
        return (*steps, *(_live(view) or (SetMetadata(),)))
    return (*steps, *_resizings(view))


def _plan_fork(view: View, queue: Queue) -> Plan | None:
    """A guest that goes on from a template's memory is defined with that; a domain that is not counts for nothing yet.
    Once it is, and stops, it starts from its own disks like all others."""
    intent = queue.create.spec.intent if queue.create is not None else None
    if not isinstance(intent, CreateVm) or intent.fork_of is None:
        return None
    domain, fork, plug = view.domain, ForkFrom(intent.fork_of), PlugCards(intent.fork_of)
    uids = (disk.volume_uid for disk in view.vm.spec.disks)
    made = tuple(MakeVolume(uid) for uid in uids if uid is not None and _unmade(view, uid))
    files = (*made, *_seed(view, in_place=domain is not None))
    # Nobody hears of its address before its cable is in: that is reserved while its guest goes on.
    told = (*_reservations(view), Introduce(intent.fork_of), Connect())
    if domain is None:
        return Plan((*files, fork, plug, *told), again=True)
    if not domain.persistent:  # its files are there, and only what is beside them is to be written
        return Plan((fork, plug, *files, *told), again=True)
    return None if domain.introduced else Plan((plug, *files, *told), again=True)


def _redefinition(view: View, redefine: bool, as_wished: bool) -> tuple[Step, ...]:
    """A document that somebody else changed is left alone, with what is new recorded in it, unless `redefine` says so."""
    if as_wished:
        return (*_live(view), SetMetadata())
    if _known_as_drifted(view) and not redefine:
        return (SetMetadata(),)
    seed = () if view.active or RECOVERED_ANNOTATION in view.vm.annotations else _seed(view)
    return (*seed, Define(), *_live(view))


def _retired(view: View) -> tuple[Step, ...]:
    """Reservations of cards that it had when its domain was last written, and has no more."""
    domain = view.domain
    before = recovered_nics(domain.metadata.spec_json) if domain is not None and domain.metadata is not None else ()
    kept = {(nic.network_uid, nic.mac) for nic in view.vm.spec.nics}
    return tuple(Release(nic) for nic in before if nic.address and (nic.network_uid, nic.mac) not in kept)


def _abandoned(view: View) -> tuple[Step, ...]:
    """Volumes that were taken out before they were known to be made. One that its domain was defined with may hold a
    guest's data already: it is made, which does nothing where it is there, and kept."""
    had = {disk.volume_uid for disk in view.vm.spec.disks}
    metadata = view.domain.metadata if view.domain is not None else None
    used = recovered_volumes(metadata.spec_json) if metadata is not None else frozenset()
    return tuple(
        MakeVolume(uid) if uid in used else RemoveVolume(uid)
        for uid in view.volumes
        if uid not in had and uid not in view.known.removed and _unmade(view, uid)
    )


def _resizings(view: View) -> tuple[Step, ...]:
    """Volumes that were asked to be larger than they were made. A running guest sees it at once."""
    names = {disk.volume_uid: disk.name for disk in view.vm.spec.disks if not disk.read_only}
    return tuple(
        GrowVolume(volume.uid, names[volume.uid], volume.spec.size_bytes)
        for volume in view.volumes.values()
        if volume.uid in names
        and not _unmade(view, volume.uid)
        and volume.generation > 1
        and volume.status.size_bytes != volume.spec.size_bytes
        and (volume.uid, volume.spec.size_bytes) not in view.known.grown
    )


def _live(view: View) -> tuple[Step, ...]:
    """The running guest follows its definition; an adopted one's document is its maker's."""
    follows = view.active and not view.vm.spec.adopted
    return (ApplyLive(),) if follows else ()


def _making(view: View, volume_uid: str) -> MakeVolume:
    is_copy = view.volumes[volume_uid].spec.copy_of_layer is not None
    return CopyVolume(volume_uid) if is_copy else MakeVolume(volume_uid)


def _unmade(view: View, volume_uid: str) -> bool:
    volume = view.volumes.get(volume_uid)
    return volume is not None and not volume.status.ready and volume_uid not in view.known.made


def _seed(view: View, *, in_place: bool = False) -> tuple[Step, ...]:
    return (WriteSeed(in_place),) if view.vm.spec.cloud_init is not None else ()


def _reservations(view: View) -> tuple[Step, ...]:
    return tuple(Reserve(nic.name) for nic in view.vm.spec.nics)


def _new_reservations(view: View) -> tuple[Step, ...]:
    """Those that its domain was not yet defined with, under this name: a card is reserved for before it is recorded."""
    metadata = view.domain.metadata if view.domain is not None else None
    if metadata is None or metadata.name != view.vm.name:
        return _reservations(view)
    before = {(nic.network_uid, nic.mac, nic.address) for nic in recovered_nics(metadata.spec_json)}
    nics = (nic for nic in view.vm.spec.nics if (nic.network_uid, nic.mac, nic.address) not in before)
    return tuple(Reserve(nic.name) for nic in nics)


def _is_reset(queue: Queue) -> bool:
    """Somebody asked for the domain's document to be as Corral wants it."""
    intents = (operation.spec.intent for operation in queue.document)
    return any(isinstance(intent, UpdateVm) and intent.redefine for intent in intents)


def _known_as_drifted(view: View) -> bool:
    conditions = view.vm.status.conditions
    return any(found.type == "Drifted" and found.status is ConditionStatus.TRUE for found in conditions)


def _drifted(view: View) -> bool:
    """Somebody else changed fields that are ours, while nothing of ours is on its way."""
    domain = view.domain
    return (
        domain is not None
        and domain.metadata is not None
        and not view.vm.spec.adopted
        and domain.metadata.spec_json == view.wanted_json
        and bool(view.wanted_hashes)
        and domain.definition_hash not in view.wanted_hashes
        and bool(domain.definition_hash)
    )


# ---- gone -------------------------------------------------------------------------------------------------------


def _plan_delete(view: View, queue: Queue) -> Plan:
    """Everything goes but the disks that are to be kept. With no operation that says so, disks are kept.

    A deletion that has begun goes on, whatever becomes of one that was asked for after it."""
    operation = queue.delete
    begun = [o.spec.intent for o in queue.superseded if o.status.state is OperationState.RUNNING]
    removing = [intent for intent in begun if isinstance(intent, DeleteVm)]
    accepted = operation is not None and operation.status.state is OperationState.ACCEPTED
    if operation is not None and cancelled(operation) and accepted and not removing:
        ending = Ending(operation, OperationState.CANCELLED)
        return Plan(settle=Settle(endings=(ending, *superseded_endings(queue)), undelete=True))
    if view.freezing:  # what it is made of is there until it is made
        return Plan(wait=Wait(view.now_s + LOOK_AGAIN_S, f"waiting for template {view.freezing[0]}"))
    intent = operation.spec.intent if operation is not None else None
    gone = any(not former.keep_disks for former in removing)  # some of them, maybe
    keep_all = not isinstance(intent, DeleteVm) or (intent.keep_disks and not gone) or not view.ours
    kept = frozenset(
        uid
        for uid, volume in view.volumes.items()
        if (keep_all or not volume.spec.delete_with_vm) and _has_data(view, volume)
    )
    endings = [*superseded_endings(queue), *([Ending(operation, OperationState.SUCCEEDED)] if operation else [])]
    late = [other for other in queue.everything if other is not operation and other not in queue.superseded]
    endings += [Ending(other, OperationState.SUPERSEDED) for other in late]
    return _forgotten(view, kept, tuple(endings))


def _forgotten(view: View, kept: frozenset[str], endings: tuple[Ending, ...]) -> Plan:
    """With its layers and points in time; where they are too many for one transaction, some of them first."""
    found = leftovers(view, kept)
    some = found[:OBJECTS_AT_ONCE]
    steps = (*_removal(view, kept), *removal_of(some))
    if len(found) > len(some):
        return Plan(steps, Settle(writes=Writes(deleted=some), more=True))
    return Plan(steps, Settle(endings=endings, forget=True, kept=kept, writes=Writes(deleted=some)))


def _has_data(view: View, volume: Volume) -> bool:
    """False where the create that this deletion overtook had not yet made it: there is nothing to keep."""
    return volume.status.ready or volume.uid in view.known.made or view.domain is not None


def plan_undo(view: View, queue: Queue, create: Operation) -> Plan:
    """Take back a create that failed or was cancelled. A volume that was ready before it began is somebody's data."""
    kept = frozenset(uid for uid, volume in view.volumes.items() if volume.status.ready)
    outcome = OperationState.FAILED if create.status.error is not None else OperationState.CANCELLED
    problem = create.status.error
    others = tuple(o for o in (*queue.declarative, *queue.imperative) if o is not create)
    why = problem or Problem(code="operation-cancelled", asked=f"create {view.vm.name}", reason="it was cancelled")
    endings = (
        Ending(create, outcome, problem),
        *superseded_endings(queue),
        *(Ending(other, OperationState.FAILED, why) for other in others),
    )
    return _forgotten(view, kept, endings)


def _removal(view: View, kept: frozenset[str]) -> tuple[Step, ...]:
    steps: list[Step] = [step for operation in view.operations for step in removal_of_copy(view, operation)]
    if view.domain is not None and view.ours:
        steps += [Destroy()] if view.active else []
        steps.append(Undefine())
    steps += [Release(nic) for nic in view.vm.spec.nics if nic.address]
    if view.vm.spec.cloud_init is not None:
        steps.append(RemoveSeed())
    steps.append(RemoveTraces())
    steps += [RemoveVolume(uid) for uid in view.volumes if uid not in kept]
    return tuple(steps)
