"""What may be asked of a VM in which state. Pure; decided before anything is written."""

from typing import Final

from corral.errors import CorralError
from corral.hypervisor.base import NO_SPACE
from corral.hypervisor.capabilities import Ability, abilities_of, check_together, refusal
from corral.model.base import ConditionStatus, Object
from corral.model.vm import Power, Vm, VmState
from corral.settings import Settings

_RUNS: Final = frozenset({VmState.RUNNING, VmState.SHUTTING_DOWN})
HAS_MEMORY: Final = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.SUSPENDED, VmState.SHUTTING_DOWN})


def check_revision(value: Object, if_revision: int | None) -> None:
    """Nothing if the object is at the revision that the caller saw; `stale-revision` otherwise."""
    if if_revision is not None and value.revision != if_revision:
        raise CorralError(
            "stale-revision",
            f"change {value.kind} {value.name!r}",
            f"it is at revision {value.revision}, not {if_revision}: somebody changed it since you read it",
            "read it again and decide anew",
            {"revision": value.revision, "if_revision": if_revision},
        )


def check_not_deleting(vm: Vm, verb: str) -> None:
    if vm.being_deleted:
        raise CorralError(
            "vm-being-deleted",
            f"{verb} VM {vm.name!r}",
            "it is being deleted",
            "corral operation list shows how far it is",
        )


def check_start(vm: Vm) -> None:
    """Start is for VMs that are off; one that is on already is fine, a paused one is not started but resumed."""
    check_not_deleting(vm, "start")
    if vm.spec.power is Power.PAUSED or (vm.spec.power is Power.ON and vm.status.seen_state is VmState.PAUSED):
        raise _wrong(vm, "start", "it is paused", f"corral resume {vm.name}")


def check_boot_from(vm: Vm, device: str | None) -> None:
    """A device of its own, and a start that boots at all."""
    if device is None:
        return
    devices = [*(disk.name for disk in vm.spec.disks), *(nic.name for nic in vm.spec.nics)]
    if device not in devices:
        asked = f"start VM {vm.name!r} from {device!r}"
        raise CorralError("device-not-found", asked, "it has no such disk or card", f"it has: {', '.join(devices)}")
    if vm.spec.adopted:
        raise _wrong(vm, "choose the boot device of", refusal(Ability.ADOPTED_DOMAIN, Ability.REDEFINITION), "")
    if vm.status.has_saved_memory:
        hint = f"corral start {vm.name} without it, then shut it down"
        raise _wrong(vm, "boot", "its memory is saved: a start goes on from there", hint)
    if vm.status.seen_state in HAS_MEMORY:
        raise _wrong(vm, "boot", f"it is {vm.status.state.value}", f"corral shutdown {vm.name}, then start it so")


def check_shutdown(vm: Vm) -> None:
    """A guest that does not run cannot be asked; one that is off already is fine."""
    check_not_deleting(vm, "shut down")
    if vm.spec.power is Power.PAUSED or vm.status.seen_state is VmState.PAUSED:
        reason = refusal(Ability.PAUSED_GUEST, Ability.SHUTDOWN)
        raise _wrong(vm, "shut down", reason, f"corral resume {vm.name}, or corral destroy {vm.name}")


def check_destroy(vm: Vm) -> None:
    check_not_deleting(vm, "destroy")


def check_save(vm: Vm) -> None:
    """There must be a memory to save; one that is saved already is fine."""
    check_not_deleting(vm, "save")
    if vm.spec.power is Power.OFF and vm.status.has_saved_memory:
        return
    if vm.status.seen_state not in HAS_MEMORY:
        raise _wrong(
            vm, "save", f"it is {vm.status.state.value}: there is no memory to save", f"corral start {vm.name}"
        )
    hint = f"corral shutdown {vm.name}"
    check_together(f"save VM {vm.name!r}", hint, *abilities_of(vm.spec), Ability.SAVED_MEMORY)


def check_pause(vm: Vm) -> None:
    check_not_deleting(vm, "pause")
    if vm.spec.power is Power.PAUSED:
        return
    if vm.status.seen_state is not VmState.RUNNING:
        raise _wrong(vm, "pause", f"it is {vm.status.state.value}", f"corral start {vm.name}")


def stands_still(vm: Vm) -> bool:
    """As it was seen last, its guest waits for space on a disk."""
    return vm.status.seen_state is VmState.PAUSED and vm.status.state_reason == NO_SPACE


def check_resume(vm: Vm) -> None:
    check_not_deleting(vm, "resume")
    if vm.spec.power is Power.OFF:
        raise _wrong(vm, "resume", "it is off", f"corral start {vm.name}")


def check_reboot(vm: Vm) -> None:
    check_not_deleting(vm, "reboot")
    if vm.status.seen_state not in _RUNS:
        raise _wrong(vm, "reboot", f"it is {vm.status.state.value}", f"corral start {vm.name}")


def check_reset(vm: Vm) -> None:
    check_not_deleting(vm, "reset")
    if vm.status.seen_state not in HAS_MEMORY:
        raise _wrong(vm, "reset", f"it is {vm.status.state.value}", f"corral start {vm.name}")


def check_rename(vm: Vm) -> None:
    """The hypervisor renames a domain only while it is off."""
    if vm.spec.power is not Power.OFF or vm.status.seen_state in HAS_MEMORY:
        raise _wrong(vm, "rename", f"it is {vm.status.state.value}", f"corral shutdown {vm.name}, then rename it")
    if vm.status.has_saved_memory:
        raise _wrong(
            vm, "rename", refusal(Ability.SAVED_MEMORY, Ability.RENAME), f"corral start {vm.name}, then shut it down"
        )


def check_has_definition(vm: Vm) -> None:
    """The document of an adopted domain was never Corral's: what is done to it is no drift."""
    if vm.spec.adopted:
        reason = refusal(Ability.ADOPTED_DOMAIN, Ability.REDEFINITION)
        raise _wrong(vm, "settle the drift of", reason, "virsh edit")


def check_devices(vm: Vm, verb: str) -> None:
    """The hardware of an adopted domain is its maker's to change; a guest that sleeps wakes up with what it had."""
    check_not_deleting(vm, verb)
    if vm.spec.adopted:
        raise _wrong(vm, verb, refusal(Ability.ADOPTED_DOMAIN, Ability.REDEFINITION), f"virsh edit {vm.name}")
    if vm.status.has_saved_memory and vm.status.seen_state not in HAS_MEMORY:
        reason = refusal(Ability.SAVED_MEMORY, Ability.REDEFINITION)
        raise _wrong(vm, verb, reason, f"corral start {vm.name}, then try again")
    if any(found.type == "Drifted" and found.status is ConditionStatus.TRUE for found in vm.status.conditions):
        reason = "its definition was changed outside of Corral"
        raise _wrong(vm, verb, reason, f"corral drift show {vm.name}; then accept it or reset it")


def check_accept_drift(vm: Vm) -> None:
    """What Corral itself has not yet carried into the domain would look like a change made outside."""
    check_not_deleting(vm, "change")
    check_has_definition(vm)
    if vm.status.observed_generation != vm.generation:
        reason = "its last change is still being carried out"
        raise _wrong(vm, "accept the drift of", reason, "corral operation list; then try again")


def check_delete(vm: Vm) -> None:
    if vm.spec.protected:
        raise CorralError(
            "vm-protected",
            f"delete VM {vm.name!r}",
            "it is protected",
            f"corral unprotect {vm.name}, then delete it",
        )


def check_session(vm: Vm, verb: str) -> None:
    """Console, exec and the guest agent need a running guest."""
    check_not_deleting(vm, verb)
    if vm.status.seen_state not in HAS_MEMORY:
        raise _wrong(vm, verb, f"it is {vm.status.state.value}", f"corral start {vm.name}")


def check_awake(vm: Vm, verb: str) -> None:
    """A guest agent answers only while its guest runs."""
    check_session(vm, verb)
    if vm.status.seen_state not in _RUNS:
        raise _wrong(vm, verb, f"it is {vm.status.state.value}", f"corral resume {vm.name}")


def _wrong(vm: Vm, verb: str, reason: str, hint: str) -> CorralError:
    return CorralError(
        "wrong-state",
        f"{verb} VM {vm.name!r}",
        reason,
        hint,
        {"state": vm.status.state.value, "power": vm.spec.power.value},
    )


def check_system_hypervisor(settings: Settings, name: str) -> None:
    """An ordinary user's own libvirt gives guests neither Corral's networks nor a share of the processors: it refuses
    to start them, after everything was made."""
    if settings.hypervisor == "libvirt" and settings.libvirt_uri.partition("?")[0].endswith("/session"):
        raise CorralError(
            "unsupported",
            f"create VM {name!r}",
            f"this daemon is an ordinary user's own, at {settings.libvirt_uri}, which has no rights to networks and CPU shares",
            "use the system's daemon: `make up`, then sudo corral, or as a member of the group corral",
        )
