"""The audit log, for administrators."""

from typing import Final

from corral.model.answers import AuditVerification
from corral.model.base import DEFAULT_PROJECT
from corral.services.access import authorize
from corral.services.caller import Caller
from corral.services.context import Context
from corral.store.base import JournalEntry
from corral.store.objects import AUDIT

PAGE_MAX: Final = 1000


class AuditService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, *, after: int = 0, limit: int = PAGE_MAX) -> tuple[JournalEntry, ...]:
        """Records after sequence `after`, oldest first, as they are stored."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "audit.read")
        return await self._context.objects.store.journal(AUDIT, after=after, limit=min(limit, PAGE_MAX))

    async def verify(self, caller: Caller) -> AuditVerification:
        """Follow the chain of hashes from its beginning."""
        await authorize(self._context, caller, DEFAULT_PROJECT, "audit.read")
        found = await self._context.audit.verify()
        return AuditVerification(
            valid=found.ok,
            records=found.records,
            first_sequence=found.first_sequence,
            last_sequence=found.last_sequence,
            anchors=found.anchors,
            broken_at=found.problem_sequence or None,
            reason=found.problem,
            rewinds=found.rewinds,
        )
