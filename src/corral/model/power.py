"""The truth table: what happens to a VM that should run and has stopped without Corral's doing. Data, and its reading."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from corral.model.vm import RunPolicy


class Stopped(StrEnum):
    """Why it stopped."""

    BY_GUEST = "guest-powered-off"
    BY_VIRSH = "virsh-destroy"
    QEMU_KILLED = "qemu-killed"  # and a guest that panicked
    HOST_REBOOTED = "host-rebooted"
    GONE = "domain-gone"  # no such domain any more, and nobody saw it stop: undefined behind our back, or lost
    UNKNOWN = "unknown"  # libvirtd was restarted since and has forgotten


class Then(StrEnum):
    """What is done about it."""

    STAY_OFF = "stay-off"  # spec.power becomes `off`, recorded as the guest's or virsh's doing
    RESTART = "restart"  # spec.power stays `on`; started with back-off
    BOOT = "boot"  # spec.power stays `on`; started in the host's boot order


# (run_policy, autostart) -> what follows each cause.
#
# always      means always, host reboots included.
# on-failure  brings back what nobody switched off. An unknown cause counts as a failure only for a VM that its owner
#             wants up with the host (autostart): better a needless start of such a one than a service that stays down,
#             and a guest that powered itself off must otherwise stay off. A domain that is gone was not powered off: that
#             leaves the domain where it was. It is made again from what was wished, and started.
# manual      only ever follows the host's boot, where autostart says so. A domain that is gone is made again, and stays off.
TABLE: Final[Mapping[tuple[RunPolicy, bool], Mapping[Stopped, Then]]] = MappingProxyType(
    {
        (RunPolicy.ALWAYS, False): {
            Stopped.BY_GUEST: Then.RESTART,
            Stopped.BY_VIRSH: Then.RESTART,
            Stopped.QEMU_KILLED: Then.RESTART,
            Stopped.HOST_REBOOTED: Then.BOOT,
            Stopped.GONE: Then.RESTART,
            Stopped.UNKNOWN: Then.RESTART,
        },
        (RunPolicy.ALWAYS, True): {
            Stopped.BY_GUEST: Then.RESTART,
            Stopped.BY_VIRSH: Then.RESTART,
            Stopped.QEMU_KILLED: Then.RESTART,
            Stopped.HOST_REBOOTED: Then.BOOT,
            Stopped.GONE: Then.RESTART,
            Stopped.UNKNOWN: Then.RESTART,
        },
        (RunPolicy.ON_FAILURE, False): {
            Stopped.BY_GUEST: Then.STAY_OFF,
            Stopped.BY_VIRSH: Then.STAY_OFF,
            Stopped.QEMU_KILLED: Then.RESTART,
            Stopped.HOST_REBOOTED: Then.STAY_OFF,
            Stopped.GONE: Then.RESTART,
            Stopped.UNKNOWN: Then.STAY_OFF,
        },
        (RunPolicy.ON_FAILURE, True): {
            Stopped.BY_GUEST: Then.STAY_OFF,
            Stopped.BY_VIRSH: Then.STAY_OFF,
            Stopped.QEMU_KILLED: Then.RESTART,
            Stopped.HOST_REBOOTED: Then.BOOT,
            Stopped.GONE: Then.RESTART,
            Stopped.UNKNOWN: Then.RESTART,
        },
        (RunPolicy.MANUAL, False): {
            Stopped.BY_GUEST: Then.STAY_OFF,
            Stopped.BY_VIRSH: Then.STAY_OFF,
            Stopped.QEMU_KILLED: Then.STAY_OFF,
            Stopped.HOST_REBOOTED: Then.STAY_OFF,
            Stopped.GONE: Then.STAY_OFF,
            Stopped.UNKNOWN: Then.STAY_OFF,
        },
        (RunPolicy.MANUAL, True): {
            Stopped.BY_GUEST: Then.STAY_OFF,
            Stopped.BY_VIRSH: Then.STAY_OFF,
            Stopped.QEMU_KILLED: Then.STAY_OFF,
            Stopped.HOST_REBOOTED: Then.BOOT,
            Stopped.GONE: Then.STAY_OFF,
            Stopped.UNKNOWN: Then.STAY_OFF,
        },
    }
)


def decide(policy: RunPolicy, autostart: bool, stopped: Stopped) -> Then:
    """The table's answer."""
    return TABLE[policy, autostart][stopped]
