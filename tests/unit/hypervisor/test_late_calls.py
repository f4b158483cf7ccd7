"""A call that hung ends while its repetition waits for its turn: libvirt refuses the latter, and nothing is wrong.

Seen with a libvirtd that was silent in the middle of a start: `resume` failed with "domain is already running".
"""

from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from corral.hypervisor.libvirt import domains

INVALID = libvirt.VIR_ERR_OPERATION_INVALID


class Domain:
    """Refuses whatever is asked; meanwhile its state becomes `then`."""

    def __init__(self, now: int, then: int, code: int = INVALID) -> None:
        self.now, self.then, self.code = now, then, code

    def refuse(self, _flags: int = 0) -> None:
        self.now = self.then
        error = libvirt.libvirtError("refused")
        error.err = (self.code, 0, "refused", 0, "", "", "", 0, 0)
        raise error

    suspend = resume = managedSave = refuse  # noqa: N815  (libvirt's name)

    def state(self, _flags: int) -> list[int]:
        return [self.now, 0]

    def isActive(self) -> bool:  # noqa: N802  (libvirt's name)
        return self.now != libvirt.VIR_DOMAIN_SHUTOFF

    def hasManagedSaveImage(self, _flags: int) -> bool:  # noqa: N802  (libvirt's name)
        return not self.isActive()


RUNNING, PAUSED, OFF = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_SHUTOFF
CALLS: list[tuple[Callable[[Any], None], int, int]] = [
    (domains.resume, PAUSED, RUNNING),
    (domains.suspend, RUNNING, PAUSED),
    (domains.save, RUNNING, OFF),
]


@pytest.mark.parametrize(("call", "now", "then"), CALLS)
def test_what_has_happened_meanwhile_is_no_failure(call: Callable[[Any], None], now: int, then: int) -> None:
    call(Domain(now, then))


@pytest.mark.parametrize(("call", "now", "then"), CALLS)
def test_what_has_not_happened_is(call: Callable[[Any], None], now: int, then: int) -> None:
    for domain in (Domain(now, now), Domain(now, then, libvirt.VIR_ERR_INTERNAL_ERROR)):
        with pytest.raises(libvirt.libvirtError):
            call(domain)
