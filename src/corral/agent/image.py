"""Images: made and removed on request, one at a time, for building one takes the whole machine."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from corral.agent.cache import Cache
from corral.agent.failures import BACKOFF_MAX_S, backoff_s
from corral.agent.operations import Progress, Shown, ended, ended_event, write_end
from corral.agent.queue import problem_of
from corral.agent.view import Ending
from corral.clock import Clock
from corral.errors import CorralError
from corral.images.base import ImageLibrary
from corral.log import logger
from corral.model.image import Image, ImageState, ImageStatus
from corral.model.operation import BuildImage, Operation, OperationState, Problem
from corral.store.objects import Objects

log = logger("agent.image")


@dataclass
class ImageKeeper:
    """Works through the unfinished operations on images. A crash starts the oldest again: `make` may be repeated."""

    objects: Objects
    cache: Cache
    library: ImageLibrary
    progress: Progress
    clock: Clock
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _making: tuple[str, asyncio.Task[None]] | None = None
    _began_at: datetime | None = None
    """When the operation under way was begun by this process."""

    def wake(self) -> None:
        """Something was written about an image; a cancellation is heard at once."""
        self._wanted.set()
        if self._making is not None:
            operation = next((o for o in self._pending() if o.uid == self._making[0]), None)
            if operation is None or operation.spec.cancel_requested_at is not None:
                self._making[1].cancel()

    async def run(self) -> None:
        await self.cache.loaded.wait()
        attempts = 0
        while True:
            self._wanted.clear()
            pending = self._pending()
            if not pending:
                await self._wanted.wait()
                continue
            try:
                await self._one(pending[0])
                attempts = 0
            except CorralError as error:  # the store: a lost race, or out of order
                attempts += 1
                log.warning("an image operation could not be recorded", code=error.code, reason=error.reason)
                await self.cache.refresh(Image, pending[0].spec.target_uid)
                await asyncio.sleep(min(backoff_s(attempts), BACKOFF_MAX_S))

    def _pending(self) -> list[Operation]:
        found = [o for o in self.cache.all_unfinished() if o.spec.target_kind == "image"]
        return sorted(found, key=lambda o: (o.created_at, o.uid))

    async def _one(self, operation: Operation) -> None:
        self._began_at = self.clock.now()
        image = self.cache.images.get(operation.spec.target_uid)
        if image is None:
            problem = Problem(code="image-not-found", asked=operation.spec.target_name, reason="the image is gone")
            await self._end(operation, OperationState.FAILED, problem)
        elif operation.spec.cancel_requested_at is not None:
            await self._cancelled(operation, image)
        elif isinstance(operation.spec.intent, BuildImage):
            await self._build(operation, image)
        else:
            await self._delete(operation, image)

    async def _build(self, operation: Operation, image: Image) -> None:
        if image.status.state is ImageState.READY:
            return await self._end(operation, OperationState.SUCCEEDED)
        began_at = self._began_at or self.clock.now()

        async def show(phase: str, share: float | None) -> None:
            self.progress.show(operation, Shown(phase, began_at, progress=share))

        async def make() -> None:
            facts = await self.library.make(image.name, image.spec, show)
            status = ImageStatus(state=ImageState.READY, facts=facts)
            await self._end(operation, OperationState.SUCCEEDED, image=image, status=status)

        task = asyncio.get_running_loop().create_task(make())
        self._making = (operation.uid, task)
        try:
            await asyncio.wait([task])
        finally:
            self._making = None
            if not task.done():  # we are stopped: the operation goes on with the next daemon
                task.cancel()
                await asyncio.wait([task], timeout=5.0)
        if task.cancelled():
            return await self._cancelled(operation, image)
        error = task.exception()
        if isinstance(error, CorralError) and error.code not in ("precondition-failed", "store-unavailable"):
            status = ImageStatus(state=ImageState.FAILED, last_error_code=error.code, last_error=error.reason)
            await self._end(operation, OperationState.FAILED, problem_of(error), image=image, status=status)
        elif error is not None:
            raise error
        return None

    async def _cancelled(self, operation: Operation, image: Image) -> None:
        await self.library.clean()
        status = image.status
        if isinstance(operation.spec.intent, BuildImage) and image.status.state is not ImageState.READY:
            reason = "its making was cancelled"
            status = ImageStatus(state=ImageState.FAILED, last_error_code="operation-cancelled", last_error=reason)
        await self._end(operation, OperationState.CANCELLED, image=image, status=status)

    async def _delete(self, operation: Operation, image: Image) -> None:
        asked = f"delete image {image.name}"
        users = [volume.name for volume in self.cache.volumes.values() if volume.spec.image_uid == image.uid]
        users += [vm.name for vm in self.cache.vms.values() if image.uid in vm.image_uids and not users]
        if users:
            problem = Problem(code="image-in-use", asked=asked, reason=f"needed by {', '.join(sorted(users)[:5])}")
            return await self._end(operation, OperationState.FAILED, problem, image=image, undelete=True)
        facts = image.status.facts
        twins = [o for o in self.cache.images.values() if o.uid != image.uid and o.status.facts is not None]
        if facts is not None and not any(o.status.facts == facts or _digest(o) == facts.digest for o in twins):
            try:
                await self.library.remove(facts.digest)
            except CorralError as error:
                return await self._end(operation, OperationState.FAILED, problem_of(error), image=image, undelete=True)
        return await self._end(operation, OperationState.SUCCEEDED, image=image, delete=True)

    async def _end(
        self,
        operation: Operation,
        state: OperationState,
        problem: Problem | None = None,
        *,
        image: Image | None = None,
        status: ImageStatus | None = None,
        delete: bool = False,
        undelete: bool = False,
    ) -> None:
        """The operation's end and the image's new status, together."""
        self.progress.discard(operation.uid)
        transaction = self.objects.transaction()
        done = ended(Ending(operation, state, problem), self.clock.now(), (), self._began_at)
        if not write_end(transaction, self.cache, done):
            return
        current = self.cache.images.get(image.uid) if image is not None else None
        changed = _changed(current, status, undelete=undelete)
        if current is not None and delete:
            transaction.delete(current)
        elif changed is not None:
            transaction.update(changed)
        transaction.event(
            ended_event(
                operation,
                state,
                problem,
                "ImageReady" if isinstance(operation.spec.intent, BuildImage) else "ImageDeleted",
                self.clock.now(),
            )
        )
        committed = await transaction.commit()
        self.cache.put(done.model_copy(update={"revision": committed.revision}))
        if current is not None and delete:
            self.cache.forget(Image, current.uid)
        elif changed is not None:
            self.cache.put(changed.model_copy(update={"revision": committed.revision}))


def _digest(image: Image) -> str:
    return image.status.facts.digest if image.status.facts is not None else ""


def _changed(image: Image | None, status: ImageStatus | None, *, undelete: bool) -> Image | None:
    if image is None:
        return None
    update: dict[str, object] = {}
    if status is not None and status != image.status:
        update["status"] = status
    if undelete and image.being_deleted:
        update["deletion_requested_at"] = None
    return image.model_copy(update=update) if update else None
