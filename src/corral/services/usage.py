"""What the VMs use: counters of now, and rates against the sample before."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.base import DomainUsage
from corral.model.answers import UsageReport, VmMemory, VmUsage
from corral.model.vm import Vm
from corral.security import policy
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.ledger import KnownVm

# Samples closer than this are not told apart: two people who watch at once get the same rates.
SAMPLE_MIN_S: Final = 0.5


@dataclass(frozen=True)
class Sample:
    """Counters by the VM's uid."""

    newest: Mapping[str, DomainUsage]
    before: Mapping[str, DomainUsage]
    interval_s: float


class UsageMeter:
    """Keeps the newest two samples; nothing runs between two requests."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._newest: dict[str, DomainUsage] = {}
        self._before: dict[str, DomainUsage] = {}
        self._newest_s = 0.0
        self._before_s = 0.0
        self._turn = asyncio.Lock()

    async def report(self, caller: Caller, project: str) -> UsageReport:
        """The running VMs of `project` (empty: of every project that the caller may see)."""
        await self._look()
        allowed = (project,) if project else policy.projects_of(caller.identity)
        interval_s = self._newest_s - self._before_s if self._before else 0.0
        items = []
        forked = [
            uid for uid in self._newest if (known := self._context.ledger.known(uid)) is not None and known.template_uid
        ]
        shares = await self._context.hypervisor.forking.memory_shares(forked) if forked else ()
        by_uid = {share.uid: share for share in shares}
        for uid, usage in self._newest.items():
            vm = self._context.ledger.known(uid)
            if vm is None or (allowed is not None and vm.project not in allowed):
                continue
            item = _usage(vm, usage, self._before.get(uid), interval_s)
            if (share := by_uid.get(uid)) is not None:
                update = {
                    "memory_private_bytes": share.private,
                    "memory_shared_bytes": share.resident - share.private,
                    "memory_saved_bytes": share.resident - share.proportional,
                }
                item = item.model_copy(update=update)
            items.append(item)
        items.sort(key=lambda item: (item.project, item.name))
        return UsageReport(time=self._context.clock.now(), items=tuple(items))

    async def sample(self) -> "Sample":
        """The newest two, without who they belong to."""
        await self._look()
        return Sample(self._newest, self._before, self._newest_s - self._before_s if self._before else 0.0)

    async def _look(self) -> None:
        async with self._turn:
            now_s = self._context.clock.monotonic_s()
            if self._newest and now_s - self._newest_s < SAMPLE_MIN_S:
                return
            sample = await self._context.hypervisor.usage_all()
            self._before, self._before_s = self._newest, self._newest_s
            self._newest, self._newest_s = {usage.uid: usage for usage in sample}, now_s


def _usage(vm: KnownVm, now: DomainUsage, before: DomainUsage | None, interval_s: float) -> VmUsage:
    def rate(newer: int, older: int) -> float:
        return round(max(0, newer - older) / interval_s, 3)

    # Counters start anew with the domain: a smaller one than before is no rate.
    known = before is not None and interval_s > 0 and now.cpu_time_ns >= before.cpu_time_ns
    old = before if before is not None and known else now
    return VmUsage(
        project=vm.project,
        name=vm.name,
        uid=now.uid,
        vcpus=vm.vcpus,
        memory_mib=now.memory_mib,
        memory_rss_bytes=now.memory_rss_bytes,
        cpu_time_ns=now.cpu_time_ns,
        disk_read_bytes=now.disk_read_bytes,
        disk_written_bytes=now.disk_written_bytes,
        net_received_bytes=now.net_received_bytes,
        net_sent_bytes=now.net_sent_bytes,
        interval_s=round(interval_s, 3) if known else 0.0,
        cpu_percent=round(rate(now.cpu_time_ns, old.cpu_time_ns) / 1e7, 1) if known else 0.0,
        disk_read_bytes_per_s=rate(now.disk_read_bytes, old.disk_read_bytes) if known else 0.0,
        disk_written_bytes_per_s=rate(now.disk_written_bytes, old.disk_written_bytes) if known else 0.0,
        net_received_bytes_per_s=rate(now.net_received_bytes, old.net_received_bytes) if known else 0.0,
        net_sent_bytes_per_s=rate(now.net_sent_bytes, old.net_sent_bytes) if known else 0.0,
    )


async def memory_of(context: Context, vm: Vm) -> VmMemory:
    """Of one running VM; reading it takes the kernel milliseconds for each GiB. `wrong-state` where it does not run."""
    shares = await context.hypervisor.forking.memory_shares((vm.uid,))
    if not shares:
        raise CorralError(
            "wrong-state", f"look at the memory of {vm.name}", "it does not run", f"corral start {vm.name}"
        )
    [share] = shares
    return VmMemory(
        resident_bytes=share.resident,
        private_bytes=share.private,
        shared_bytes=share.resident - share.private,
        proportional_bytes=share.proportional,
        saved_bytes=share.resident - share.proportional,
    )
