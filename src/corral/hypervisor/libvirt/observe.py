"""A domain as libvirt has it, in our words; also why it stopped, as far as libvirt knows."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import libvirt

from corral.hypervisor.base import StopCause
from corral.model.vm import VmState

STATES: Final[Mapping[int, VmState]] = MappingProxyType(
    {
        libvirt.VIR_DOMAIN_NOSTATE: VmState.UNKNOWN,
        libvirt.VIR_DOMAIN_RUNNING: VmState.RUNNING,
        libvirt.VIR_DOMAIN_BLOCKED: VmState.RUNNING,
        libvirt.VIR_DOMAIN_PAUSED: VmState.PAUSED,
        libvirt.VIR_DOMAIN_SHUTDOWN: VmState.SHUTTING_DOWN,
        libvirt.VIR_DOMAIN_SHUTOFF: VmState.SHUT_OFF,
        libvirt.VIR_DOMAIN_CRASHED: VmState.CRASHED,
        libvirt.VIR_DOMAIN_PMSUSPENDED: VmState.SUSPENDED,
    }
)

_RUNNING_REASONS: Final = {
    libvirt.VIR_DOMAIN_RUNNING_BOOTED: "booted",
    libvirt.VIR_DOMAIN_RUNNING_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_RUNNING_RESTORED: "restored",
    libvirt.VIR_DOMAIN_RUNNING_FROM_SNAPSHOT: "from snapshot",
    libvirt.VIR_DOMAIN_RUNNING_UNPAUSED: "unpaused",
    libvirt.VIR_DOMAIN_RUNNING_SAVE_CANCELED: "save canceled",
    libvirt.VIR_DOMAIN_RUNNING_WAKEUP: "event wakeup",
    libvirt.VIR_DOMAIN_RUNNING_CRASHED: "crashed",
}
_PAUSED_REASONS: Final = {
    libvirt.VIR_DOMAIN_PAUSED_USER: "user",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migrating",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "saving",
    libvirt.VIR_DOMAIN_PAUSED_DUMP: "dumping",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "I/O error",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: "creating snapshot",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PAUSED_STARTING_UP: "starting up",
}
_SHUTOFF_REASONS: Final = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "destroyed",
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: "migrated",
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: "saved",
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "failed",
    libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: "from snapshot",
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: "daemon",
}
_REASONS: Final[Mapping[int, Mapping[int, str]]] = MappingProxyType(
    {
        libvirt.VIR_DOMAIN_RUNNING: _RUNNING_REASONS,
        libvirt.VIR_DOMAIN_PAUSED: _PAUSED_REASONS,
        libvirt.VIR_DOMAIN_SHUTOFF: _SHUTOFF_REASONS,
        libvirt.VIR_DOMAIN_CRASHED: {libvirt.VIR_DOMAIN_CRASHED_PANICKED: "panicked"},
    }
)

# libvirt says `crashed` when QEMU went away without a word as well as after a panic; events tell the two apart.
_STOP_CAUSES: Final[Mapping[int, StopCause]] = MappingProxyType(
    {
        libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: StopCause.GUEST,
        libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: StopCause.DESTROYED,
        libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: StopCause.FAILED,
        libvirt.VIR_DOMAIN_SHUTOFF_FAILED: StopCause.FAILED,
        libvirt.VIR_DOMAIN_SHUTOFF_SAVED: StopCause.SAVED,
    }
)

# How the last stop was announced; see virDomainEventStoppedDetailType.
EVENT_STOP_CAUSES: Final[Mapping[int, StopCause]] = MappingProxyType(
    {
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: StopCause.GUEST,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: StopCause.DESTROYED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: StopCause.CRASHED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: StopCause.SAVED,
        libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: StopCause.FAILED,
    }
)


def state_reason(state: int, reason: int) -> str:
    return _REASONS.get(state, {}).get(reason, "unknown")


def stop_cause(state: int, reason: int, remembered: StopCause | None) -> StopCause:
    """Why it does not run: the event's word if it was heard (`remembered`), else the state's.

    `remembered` NONE says that it has never run since it was defined."""
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return StopCause.CRASHED
    if state != libvirt.VIR_DOMAIN_SHUTOFF:
        return StopCause.NONE
    if remembered is not None:
        return remembered
    return _STOP_CAUSES.get(reason, StopCause.UNKNOWN)
