"""Who may, and what is written down of it: the first thing that every service does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.identity import Project
from corral.names import NAME_MAX_CHARS
from corral.security import policy
from corral.security.audit import AuditEntry
from corral.services.caller import Caller
from corral.services.context import Context
from corral.store.base import Committed
from corral.store.objects import Transaction

TARGET_MAX_CHARS: Final = 128
EVERYWHERE: Final = ""


async def authorize(context: Context, caller: Caller, project: str, action: str, target: str = "") -> None:
    """Nothing if the caller may; `forbidden` (audited) or `project-not-found` otherwise."""
    try:
        policy.check(caller.identity, project, action)
    except CorralError:
        await record(context, caller, project, action, target, "denied")
        raise
    if project != DEFAULT_PROJECT and await context.objects.find(Project, DEFAULT_PROJECT, project) is None:
        raise CorralError(
            "project-not-found", f"project {project[:64]!r}", "there is none of that name", "use 'default'"
        )


async def visible(context: Context, caller: Caller, project: str, action: str) -> tuple[str, ...] | None:
    """The projects that a reading request is about: the one it names or, for EVERYWHERE, all that the caller may see.

    None means all there are. Raises `forbidden` where there is none."""
    if project != EVERYWHERE:
        await authorize(context, caller, project, action)
        return (project,)
    mine = policy.projects_of(caller.identity)
    allowed = tuple(name for name in mine or () if policy.allows(caller.identity, name, action))
    if (mine is not None and not allowed) or (
        mine is None and not policy.allows(caller.identity, DEFAULT_PROJECT, action)
    ):
        await authorize(context, caller, DEFAULT_PROJECT, action)
    return None if mine is None else allowed


async def record(
    context: Context, caller: Caller, project: str, action: str, target: str, outcome: str, detail: str = ""
) -> None:
    """One audit record of its own, for what changes no object."""
    await context.audit.record(_entry(caller, project, action, target, outcome, detail))


@asynccontextmanager
async def audited(context: Context, caller: Caller, project: str, action: str, target: str) -> AsyncIterator[None]:
    """Write down a request that failed within, by its code; one that succeeds is written with its change."""
    try:
        yield
    except CorralError as error:
        if error.code != "forbidden":  # written down by `authorize`
            await record(context, caller, project, action, target, error.code)
        raise


async def commit(
    context: Context,
    transaction: Transaction,
    caller: Caller,
    project: str,
    action: str,
    target: str,
    detail: str = "",
) -> Committed:
    """Commit `transaction` with its audit record: both are kept, or neither."""
    context.audit.add(transaction, _entry(caller, project, action, target, "accepted", detail))
    return await transaction.commit()


async def try_commit(
    context: Context,
    transaction: Transaction,
    caller: Caller,
    project: str,
    action: str,
    target: str,
    detail: str = "",
) -> int | None:
    """`commit`, answered with the revision; None after a lost race: somebody was first with what it rests on."""
    try:
        return (await commit(context, transaction, caller, project, action, target, detail)).revision
    except CorralError as error:
        if error.code != "precondition-failed":
            raise
        return None


def _entry(caller: Caller, project: str, action: str, target: str, outcome: str, detail: str) -> AuditEntry:
    """Names are cut: what a caller sends to be refused must not fill the log."""
    return AuditEntry(
        identity=caller.identity.name,
        project=project[:NAME_MAX_CHARS],
        action=action,
        target=target[:TARGET_MAX_CHARS],
        outcome=outcome,
        request_id=caller.request_id,
        detail=detail,
    )
