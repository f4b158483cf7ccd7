"""Pools: read, made in a directory of the host's, and deleted while nothing lies in them."""

from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.model.base import DEFAULT_POOL, DEFAULT_PROJECT
from corral.model.operation import MoveVolume, Operation
from corral.model.pool import Pool, PoolSpec, PoolStatus
from corral.model.requests import ListRequest
from corral.model.volume import Volume
from corral.model.volume_requests import CreatePoolRequest
from corral.names import new_uid, parse_name
from corral.services import listing
from corral.services.access import audited, authorize, commit, record
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.disks import SYSTEM_PLACES
from corral.services.documents import Document, Listing

# One at a time with those who make a volume in it: it is empty, or it stays.
POOL_TURN: Final = "pool"


def _moves_to(operation: Operation, pool: str) -> bool:
    intent = operation.spec.intent
    return (
        isinstance(intent, MoveVolume) and not operation.status.state.final and pool in (intent.pool, intent.from_pool)
    )


class PoolService:
    """Pools are the host's: they are decided upon with a role in the project `default`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def list(self, caller: Caller, request: ListRequest) -> Listing:
        return await listing.list_objects(self._context, caller, DEFAULT_PROJECT, Pool, request)

    async def get(self, caller: Caller, name: str) -> Document:
        return await listing.get_object(self._context, caller, DEFAULT_PROJECT, Pool, name)

    async def create(self, caller: Caller, request: CreatePoolRequest) -> Pool:
        """In a new or empty directory, which it keeps for itself."""
        context, action, asked = self._context, "pool.create", f"make pool {request.name[:64]!r}"
        await authorize(context, caller, DEFAULT_PROJECT, action, request.name)
        async with audited(context, caller, DEFAULT_PROJECT, action, request.name):
            parse_name(request.name, "pool name")
            path = self._place(request.path, asked)
            async with context.ledger.name(POOL_TURN, request.name):
                if await context.objects.find(Pool, DEFAULT_PROJECT, request.name) is not None:
                    raise CorralError("name-taken", asked, "there is a pool of this name", "choose another name")
                pool = Pool(
                    name=request.name,
                    uid=new_uid(),
                    created_at=context.clock.now(),
                    labels=request.labels,
                    spec=PoolSpec(path=str(path)),
                )
                # The place first: a pool that is known is there. Cut here, the agent finds the place and makes the object.
                await context.volumes.open_pool(pool)
                usage = await context.volumes.usage(pool.name)
                total, free = usage.total_bytes, usage.free_bytes
                status = PoolStatus(total_bytes=total, free_bytes=free, used_bytes=total - free)
                pool = pool.model_copy(update={"status": status})
                transaction = context.objects.transaction()
                transaction.create(pool)
                try:
                    done = await commit(context, transaction, caller, DEFAULT_PROJECT, action, request.name, str(path))
                except CorralError as error:
                    if error.code != "precondition-failed":
                        raise
                    # The agent looked in between, and made the object of the place that it found.
                    await record(context, caller, DEFAULT_PROJECT, action, request.name, "accepted", str(path))
                    return await context.objects.require(Pool, DEFAULT_PROJECT, request.name)
        return pool.model_copy(update={"revision": done.revision})

    async def delete(self, caller: Caller, name: str) -> None:
        """While no volume lies in it. Its directory stays, empty."""
        context, action, asked = self._context, "pool.delete", f"delete pool {name[:64]!r}"
        await authorize(context, caller, DEFAULT_PROJECT, action, name)
        async with audited(context, caller, DEFAULT_PROJECT, action, name), context.ledger.name(POOL_TURN, name):
            pool = await context.objects.require(Pool, DEFAULT_PROJECT, name)
            if name == DEFAULT_POOL:
                raise CorralError("pool-in-use", asked, "it is the default one", "delete the volumes in it instead")
            inside = [volume.name for volume in await context.objects.list(Volume) if volume.spec.pool == name]
            inside += [o.spec.target_name for o in await context.objects.list(Operation) if _moves_to(o, name)]
            if inside:
                reason = f"volumes lie in it: {', '.join(sorted(inside)[:5])}"
                raise CorralError("pool-in-use", asked, reason, "move or delete them first", {"volumes": len(inside)})
            await context.volumes.close_pool(name)
            transaction = context.objects.transaction()
            transaction.delete(pool)
            await commit(context, transaction, caller, DEFAULT_PROJECT, action, name)

    def _place(self, text: str, asked: str) -> Path:
        """A place that is nobody else's: not the system's, not ours, not below another pool."""
        path = Path(text)
        if not path.is_absolute() or "\0" in text or ".." in path.parts:
            raise CorralError("invalid-argument", asked, f"{text[:80]!r} is no absolute path", "--path /srv/fast")
        try:
            path = path.parent.resolve(strict=True) / path.name
        except (OSError, RuntimeError) as error:
            reason = f"{path.parent}: {getattr(error, 'strerror', None) or 'a ring of links'}"
            raise CorralError("invalid-argument", asked, reason, f"mkdir -p {path.parent}") from error
        if path.is_symlink():
            raise CorralError("invalid-argument", asked, f"{path} is a symbolic link", "name the directory itself")
        ours = (self._context.settings.state_dir, *self._context.volumes.pools().values())
        taken = [place for place in (*map(Path, SYSTEM_PLACES), *ours) if path.is_relative_to(place)]
        taken += [place for place in ours if place.is_relative_to(path)]
        if taken or path == Path("/"):
            reason = f"{path} lies in, or holds, {taken[0] if taken else 'the whole system'}"
            raise CorralError("invalid-argument", asked, reason, "choose a directory of its own, as /srv/fast")
        return path
