"""One request that changes something: one transaction with the object, its operation, its claims, audit and event."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from corral.errors import CorralError
from corral.model.base import Model, Object
from corral.model.event import Event
from corral.model.operation import Intent, Operation, OperationSpec
from corral.model.vm import Vm
from corral.names import new_uid, parse_name
from corral.scheduler.admission import NOTHING, Demand
from corral.services import rules
from corral.services.access import audited, authorize, commit, try_commit
from corral.services.caller import Caller
from corral.services.context import Context
from corral.store.objects import Transaction, claim_key, name_claim

REQUEST_DIGEST: Final = "corral/request-digest"
CLIENT_KEY_MAX_CHARS: Final = 128
# A lost race is tried again; who loses this often is told so. The agent's observations are what races most.
ATTEMPTS_MAX: Final = 32

T = TypeVar("T", bound=Object)
Extra = Callable[[Transaction], None]


@dataclass(frozen=True)
class Mutation:
    """What stays the same over all attempts of one mutating request."""

    caller: Caller
    project: str
    action: str
    """The policy's word: `vm.start`."""
    target: str
    """The name, as the caller wrote it."""
    parameters: Model | None = None
    if_revision: int | None = None

    @property
    def digest(self) -> str:
        """Tells a repeated request from another one under the same Idempotency-Key. Secrets are masked in it."""
        asked = "" if self.parameters is None else self.parameters.model_dump_json()
        text = json.dumps([self.action, self.project, self.target, self.if_revision, asked])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Decision:
    """What a request makes of an object: the object changed (None: only an operation), the intent, what it takes."""

    intent: Intent
    changed: Object | None = None
    wanted: Demand = NOTHING
    also: Extra | None = None
    """Further writes of the same transaction: a name's claims."""
    lost: Callable[[str], CorralError | None] = field(default=lambda key: None)
    """What a lost claim means; None: try again."""


async def change(
    context: Context, mutation: Mutation, cls: type[T], decide: Callable[[T], Decision]
) -> tuple[T | None, Operation]:
    """Authorize, find, decide and commit; decide anew after a lost race, unless the caller named a revision.

    Returns the object after the change; None for a repeated request whose object is gone."""
    caller, project = mutation.caller, mutation.project
    await authorize(context, caller, project, mutation.action, mutation.target)
    async with audited(context, caller, project, mutation.action, mutation.target):
        if (known := await repeated(context, mutation)) is not None:
            return await context.objects.get(cls, known.spec.target_uid), known
        for _ in range(ATTEMPTS_MAX):
            value = await context.objects.require(cls, project, mutation.target)
            rules.check_revision(value, mutation.if_revision)
            decision = decide(value)
            try:
                return await _attempt(context, mutation, value, decision)
            except CorralError as error:
                if error.code != "precondition-failed":
                    raise
                if (meaning := decision.lost(str(error.context.get("key", "")))) is not None:
                    raise meaning from error
            if (known := await repeated(context, mutation)) is not None:
                return value, known
        raise too_busy(mutation)


async def change_at_once(
    context: Context,
    mutation: Mutation,
    draft: Callable[[Transaction], Awaitable[T]],
    detail: Callable[[T], str] = lambda value: "",
    counted: str = "",
) -> T:
    """Authorize, draft and commit what needs no operation, since whoever carries it out follows it: answered when they
    have, or with `not-in-force`. Drafted anew after a lost race.

    `draft` writes into a transaction and answers with the object as it is then; without a write there is nothing to do.
    Where it counts what there is of a kind, `counted` names that: what it has counted still holds when it is written."""
    caller, project, action, target = mutation.caller, mutation.project, mutation.action, mutation.target
    await authorize(context, caller, project, action, target)
    async with audited(context, caller, project, action, target):
        if not counted:
            value = await _committed(context, mutation, draft, detail, "")
        else:  # in turn: of many that begin at once all but one would have counted in vain
            async with context.ledger.name(f"{project}/{counted}", "*"):
                value = await _committed(context, mutation, draft, detail, f"/turns/{counted}/{project}")
    await context.followers.until(value.revision, f"{action} {target[:64]!r}")
    return value


async def _committed(
    context: Context,
    mutation: Mutation,
    draft: Callable[[Transaction], Awaitable[T]],
    detail: Callable[[T], str],
    turn: str,
) -> T:
    caller, project, action, target = mutation.caller, mutation.project, mutation.action, mutation.target
    for _ in range(ATTEMPTS_MAX):
        transaction = context.objects.transaction()
        last = await context.objects.store.get(turn) if turn else None
        value = await draft(transaction)
        if not transaction.writes:
            return value
        if turn:
            transaction.take_turn(turn, last)
        revision = await try_commit(context, transaction, caller, project, action, target, detail(value))
        if revision is not None:
            return value.model_copy(update={"revision": revision})
    raise too_busy(mutation)


async def check_name(context: Context, cls: type[Object], project: str, name: str, asked: str) -> None:
    """Nothing if an object of this kind may be called so; `invalid-name` or `name-taken` otherwise."""
    words = cls.KIND.replace("-", " ")
    parse_name(name, f"{words} name")
    if await context.objects.owner(name_claim(cls.KIND, project, name)) is not None:
        raise CorralError("name-taken", asked, f"there is one of this name: {words} {name}", "choose another name")


async def _attempt(context: Context, mutation: Mutation, value: T, decision: Decision) -> tuple[T, Operation]:
    transaction = context.objects.transaction()
    if decision.changed is None:
        operation = new_operation(context, mutation, value, decision.intent, 0)
        if mutation.if_revision is not None:
            transaction.require(value)
        after = value
    else:
        assert isinstance(decision.changed, type(value))
        after = decision.changed.model_copy(update={"generation": value.generation + 1})
        operation = new_operation(context, mutation, value, decision.intent, after.generation)
        transaction.update(after)
    if decision.also is not None:
        decision.also(transaction)
    asked = f"{decision.intent.verb} {value.kind} {value.name!r}"
    with context.ledger.promise(decision.wanted, await context.capacity(), asked):
        revision = await submit(context, mutation, transaction, operation)
        if decision.changed is not None:
            after = after.model_copy(update={"revision": revision})
            if isinstance(after, Vm):
                context.ledger.observe(after)
    return after, operation.model_copy(update={"revision": revision})


def new_operation(
    context: Context, mutation: Mutation, target: Object, intent: Intent, tracks_generation: int
) -> Operation:
    """The operation of a request on `target` as it is before the change."""
    caller, uid = mutation.caller, new_uid()
    kind = target.kind
    assert kind in ("vm", "image", "volume", "network", "host", "template")
    return Operation(
        project=target.project,
        name=uid,
        uid=uid,
        created_at=context.clock.now(),
        annotations={REQUEST_DIGEST: mutation.digest} if caller.client_key else {},
        spec=OperationSpec(
            intent=intent,
            target_kind=kind,
            target_uid=target.uid,
            target_name=target.name,
            tracks_generation=tracks_generation,
            previous_power=target.spec.power.value if isinstance(target, Vm) else "",
            requested_by=caller.identity.name,
            request_id=caller.request_id,
            client_key=caller.client_key,
        ),
    )


async def submit(context: Context, mutation: Mutation, transaction: Transaction, operation: Operation) -> int:
    """Put the operation, its idempotency claim, the event and the audit record beside the change; commit all."""
    spec = operation.spec
    put_operation(mutation, transaction, operation)
    return (
        await commit(
            context,
            transaction,
            mutation.caller,
            mutation.project,
            mutation.action,
            f"{spec.target_kind}/{spec.target_name}",
            detail=f"operation {operation.uid}",
        )
    ).revision


def put_operation(mutation: Mutation, transaction: Transaction, operation: Operation) -> None:
    """The operation, its idempotency claim and the event."""
    caller, spec = mutation.caller, operation.spec
    transaction.create(operation)
    if caller.client_key:
        transaction.claim(client_claim(caller), operation.uid)
    transaction.event(
        Event(
            time=operation.created_at,
            project=operation.project,
            reason="OperationRequested",
            message=f"{caller.identity.name} asked for {spec.intent.verb} of {spec.target_kind} {spec.target_name}",
            object_kind=spec.target_kind,
            object_uid=spec.target_uid,
            object_name=spec.target_name,
            operation_uid=operation.uid,
            source=f"service:{caller.identity.name}",
        )
    )


async def repeated(context: Context, mutation: Mutation) -> Operation | None:
    """The operation that this very request got before, by its Idempotency-Key; None for a new request.

    Raises `idempotency-key-reused` when another request came under the same key."""
    caller = mutation.caller
    if not caller.client_key:
        return None
    if len(caller.client_key) > CLIENT_KEY_MAX_CHARS or not caller.client_key.isprintable() or "/" in caller.client_key:
        raise CorralError(
            "invalid-argument",
            "Idempotency-Key",
            f"a key is 1 to {CLIENT_KEY_MAX_CHARS} printable characters without '/'",
            "use a random UUID",
        )
    uid = await context.objects.owner(client_claim(caller))
    operation = None if uid is None else await context.objects.get(Operation, uid)
    if uid is None or (operation is not None and operation.annotations.get(REQUEST_DIGEST) == mutation.digest):
        return operation
    other = f"{operation.spec.intent.verb} of {operation.spec.target_name}" if operation else "one no longer kept"
    raise CorralError(
        "idempotency-key-reused",
        f"{mutation.action} {mutation.target!r}",
        f"the key was used for another request: {other}",
        "use a new key for each new request",
    )


def client_claim(caller: Caller) -> str:
    return claim_key("client-key", caller.identity.name, caller.client_key)


def too_busy(mutation: Mutation) -> CorralError:
    return CorralError(
        "precondition-failed",
        f"{mutation.action} {mutation.target!r}",
        f"it changed {ATTEMPTS_MAX} times while this was tried",
        "try again",
    )
