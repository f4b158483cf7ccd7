"""The daemon itself: how it is, its backup, and recovery after a lost database."""

import asyncio
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.files import why_not_writable
from corral.hypervisor.base import HypervisorFacts
from corral.model.answers import DaemonStatus, Readiness, RecoveryReport
from corral.model.base import DEFAULT_PROJECT
from corral.model.host import Host
from corral.names import new_uid
from corral.services.access import audited, authorize, record
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.recover import recover
from corral.version import __version__

FACTS_TIMEOUT_S: Final = 2.0
# The database and its log need a few; a guest that fills the file system leaves less.
FREE_MIN_BYTES: Final = 16 * 2**20

Backup = Callable[[Path], object]
"""Write a whole copy of the database to a path; blocking."""


class DaemonService:
    def __init__(
        self, context: Context, *, started_at: datetime, agent_ready: Callable[[], bool], backup: Backup
    ) -> None:
        self._context = context
        self._started_at = started_at
        self._started_s = context.clock.monotonic_s()
        self._agent_ready = agent_ready
        self._backup = backup

    @property
    def revision(self) -> int:
        return self._context.objects.store.revision

    async def status(self, caller: Caller) -> DaemonStatus:
        await authorize(self._context, caller, DEFAULT_PROJECT, "daemon.read")
        context, settings = self._context, self._context.settings
        facts = await self._facts()
        host = await context.objects.get(Host, context.host_uid)
        return DaemonStatus(
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            uptime_s=round(context.clock.monotonic_s() - self._started_s, 3),
            state_dir=str(settings.state_dir),
            socket=str(settings.socket),
            driver=settings.hypervisor,
            hypervisor_uri=facts.uri if facts is not None else settings.libvirt_uri,
            hypervisor_connected=facts is not None and facts.connected,
            accelerator=host.status.accelerator if host is not None else "",
            installation_id=context.installation_id,
            host_uid=context.host_uid,
            store_revision=self.revision,
            readiness=await self.readiness(),
        )

    async def readiness(self) -> Readiness:
        """Whether requests can be served and carried out now."""
        reasons = []
        try:
            await self._context.objects.store.get(Host.prefix())
        except CorralError as error:
            reasons.append(f"the store does not answer: {error.reason}")
        if why := why_not_writable(self._context.settings.state_dir, FREE_MIN_BYTES):
            reasons.append(f"nothing can be written: {why}")
        facts = await self._facts()
        if facts is None or not facts.connected:
            reasons.append("the hypervisor is not connected")
        if not self._agent_ready():
            reasons.append("the agent has not seen every VM yet")
        return Readiness(ready=not reasons, reasons=tuple(reasons))

    async def backup(self, caller: Caller) -> Path:
        """A finished copy of the database, beside it; whoever streams it removes it afterwards."""
        action = "daemon.backup"
        await authorize(self._context, caller, DEFAULT_PROJECT, action)
        async with audited(self._context, caller, DEFAULT_PROJECT, action, "database"):
            await record(self._context, caller, DEFAULT_PROJECT, action, "database", "accepted")
            # Removed at the next start if the stream is cut by a crash: `files.remove_leftovers` knows the name.
            target = self._context.settings.state_dir / f".backup-{new_uid()[:8]}.tmp"
            await asyncio.to_thread(self._backup, target)
            return target

    async def recover(self, caller: Caller) -> RecoveryReport:
        """Rebuild a lost database from what lies on the host; refused where the store knows other things already."""
        action = "daemon.recover"
        await authorize(self._context, caller, DEFAULT_PROJECT, action)
        async with audited(self._context, caller, DEFAULT_PROJECT, action, "database"):
            report = await recover(self._context)
            figures = f"{len(report.vms)} VMs, {len(report.volumes)} volumes, {len(report.images)} images"
            await record(self._context, caller, DEFAULT_PROJECT, action, "database", "accepted", figures)
            return report

    async def _facts(self) -> HypervisorFacts | None:
        try:
            async with asyncio.timeout(FACTS_TIMEOUT_S):
                return await self._context.hypervisor.facts()
        except (CorralError, TimeoutError):
            return None
