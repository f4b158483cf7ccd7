"""Operations: looked at, waited for, cancelled."""

import asyncio
import re
from contextlib import aclosing
from typing import Final

from corral.errors import CorralError
from corral.model import limits
from corral.model.operation import Operation
from corral.model.requests import ListRequest
from corral.security import policy
from corral.services import listing
from corral.services.access import audited, authorize, commit
from corral.services.caller import Caller
from corral.services.changes import ATTEMPTS_MAX
from corral.services.context import Context
from corral.services.documents import Document, Listing, document_of, in_projects
from corral.store.base import Record
from corral.store.objects import decode

UID_PREFIX_MIN_CHARS: Final = 6
ALIKE_MAX: Final = 16  # six random characters are alike in few operations
_UID_PREFIX: Final = re.compile(r"[0-9a-f-]{6,36}")


class OperationService:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, project: str, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, project, Operation, request)

    async def get(self, caller: Caller, uid: str, *, wait_s: float = 0.0) -> Document:
        """The operation; with `wait_s` when it is final, or as it is after that time."""
        operation, record = await self._find(caller, uid, "operation.read")
        if wait_s <= 0 or operation.status.state.final:
            return document_of(record)
        try:
            async with asyncio.timeout(min(wait_s, limits.OPERATION_WAIT_MAX_S)):
                async with aclosing(self._context.objects.store.watch(operation.key, record.revision)) as changes:
                    async for change in changes:
                        if change.value is None:
                            break
                        record = Record(change.key, change.value, change.revision, 0)
                        if decode(Operation, record).status.state.final:
                            break
        except TimeoutError:
            pass
        except CorralError as error:
            if error.code != "compacted":
                raise
        return document_of(record)

    async def cancel(self, caller: Caller, uid: str) -> Operation:
        """Ask for its end at the next safe point; `operation-finished` if it has ended already."""
        action = "operation.cancel"
        for _ in range(ATTEMPTS_MAX):
            operation, _record = await self._find(caller, uid, action)
            async with audited(self._context, caller, operation.project, action, uid):
                if operation.status.state.final:
                    raise CorralError(
                        "operation-finished",
                        f"cancel operation {uid}",
                        f"it has {operation.status.state.value} already",
                        "nothing is left to cancel",
                    )
            if operation.spec.cancel_requested_at is not None:
                return operation
            asked_at = self._context.clock.now()
            spec = operation.spec.model_copy(update={"cancel_requested_at": asked_at})
            changed = operation.model_copy(update={"spec": spec, "generation": operation.generation + 1})
            transaction = self._context.objects.transaction()
            transaction.update(changed)
            try:
                committed = await commit(
                    self._context,
                    transaction,
                    caller,
                    operation.project,
                    action,
                    f"operation/{operation.uid}",
                    f"{operation.spec.intent.verb} of {operation.spec.target_kind} {operation.spec.target_name}",
                )
            except CorralError as error:
                if error.code != "precondition-failed":
                    raise
            else:
                return changed.model_copy(update={"revision": committed.revision})
        raise CorralError("precondition-failed", f"cancel operation {uid}", "it changes all the time", "try again")

    async def _find(self, caller: Caller, uid: str, action: str) -> tuple[Operation, Record]:
        """By uid, or by a beginning of it that only one has. Those of projects that the caller may not see are as good
        as not there: not even that they are is told."""
        found: list[Record] = []
        if _UID_PREFIX.fullmatch(uid):
            page = await self._context.objects.store.range(f"{Operation.prefix()}{uid}", limit=ALIKE_MAX)
            found = [record for record in page.records if self._may_see(caller, record)]
        if len(found) > 1:
            raise CorralError("operation-not-found", f"operation {uid!r}", "several begin so", "write more of its uid")
        if not found:
            await authorize(self._context, caller, "default", action, uid)
            raise CorralError(
                "operation-not-found",
                f"operation {uid[:64]!r}",
                "there is none: it never was, or it is older than the history that is kept",
                "corral operation list",
            )
        operation = decode(Operation, found[0])
        await authorize(self._context, caller, operation.project, action, uid)
        return operation, found[0]

    def _may_see(self, caller: Caller, record: Record) -> bool:
        projects = policy.projects_of(caller.identity)
        return projects is None or in_projects(record.value, Operation.KIND, projects)
