"""What the steps about moved and flattened disks do, and the copying that goes on beside the VM's turns."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from corral.agent.cache import Cache
from corral.agent.definition import Places, build_definition
from corral.agent.failures import WAITED_FOR
from corral.agent.operations import Progress
from corral.agent.plan_disks import OnDisk, intent_of
from corral.agent.queue import problem_of
from corral.agent.steps import BeginDiskWork, RemoveCopy, SealDisk, Step, StopDiskWork, SwitchDisk
from corral.agent.view import DiskSeen
from corral.errors import CorralError
from corral.hypervisor.base import DomainDisk, HypervisorDriver
from corral.log import logger
from corral.model.layer import Layer
from corral.model.operation import MoveVolume, Operation
from corral.model.vm import Power, Vm
from corral.model.volume import Volume
from corral.storage.base import Source, VolumeStore
from corral.storage.layers import OnShare

AWAY_PAUSE_S = 1.0
STOP_S = 5.0

log = logger("agent.disk_work")


@dataclass
class DiskEffects:
    """What is known here may be lost at any time."""

    cache: Cache
    hypervisor: HypervisorDriver
    volumes: VolumeStore
    places: Callable[[], Places]
    _wake: Callable[[str], None] = lambda _uid: None
    _progress: Progress | None = None
    _seen: dict[str, DiskSeen] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def tell(self, wake: Callable[[str], None], progress: Progress) -> None:
        """`wake` hears of the VM whose copying has come to an end."""
        self._wake, self._progress = wake, progress

    def effect(self, step: Step, vm: Vm, active: bool) -> Awaitable[None] | None:
        """None: the step is about something else."""
        match step:
            case BeginDiskWork():
                return self._begin(vm, step)
            case StopDiskWork():
                return self._stop(vm, step)
            case SwitchDisk():
                return self._switch(vm, step, active)
            case SealDisk():
                return self._seal(vm, step)
            case RemoveCopy(volume=volume, pool=pool):
                return self._remove(volume, pool)
        return None

    def seen(self, operations: tuple[Operation, ...]) -> dict[str, DiskSeen]:
        """Of each that is about a disk."""
        return {
            operation.uid: replace(self._seen.get(operation.uid, DiskSeen("")), path=self._path(operation))
            for operation in operations
            if isinstance(operation.spec.intent, OnDisk)
        }

    def forget(self, operations: set[str]) -> None:
        for uid in operations:
            self._seen.pop(uid, None)

    async def close(self) -> None:
        """QEMU goes on copying; the next process looks how far it is."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)

    # ---- effects -------------------------------------------------------------------------------------------------------

    async def _begin(self, vm: Vm, step: BeginDiskWork) -> None:
        operation, volume = self._operation(vm, step.operation_uid)
        uid = operation.uid
        await self._cancel(uid)
        self._seen[uid] = DiskSeen("", running=True, by=step.by)

        def on_share(share: float) -> None:
            if uid in self._seen:
                self._seen[uid] = replace(self._seen[uid], share=share)
                if self._progress is not None:
                    self._progress.show_share(operation, BeginDiskWork.PHASE, share)

        work = self._flatten if not isinstance(operation.spec.intent, MoveVolume) else self._copy
        task = asyncio.get_running_loop().create_task(
            self._run(vm.uid, uid, lambda: work(vm, operation, volume, step.by[0], on_share))
        )
        self._tasks[uid] = task

    async def _run(self, vm_uid: str, uid: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                try:
                    await work()
                    self._note(uid, None)
                except CorralError as error:
                    if error.code in WAITED_FOR:  # QEMU may go on all the same: it is looked at again
                        await asyncio.sleep(AWAY_PAUSE_S)
                        continue
                    log.info("a copy ended", operation=uid, code=error.code, reason=error.reason)
                    self._note(uid, error)
                return
        finally:
            if self._tasks.get(uid) is asyncio.current_task():
                del self._tasks[uid]
            self._wake(vm_uid)

    def _note(self, uid: str, error: CorralError | None) -> None:
        found, problem = self._seen.get(uid, DiskSeen("")), None if error is None else problem_of(error)
        self._seen[uid] = replace(found, running=False, done=error is None, problem=problem)

    async def _copy(self, vm: Vm, operation: Operation, volume: Volume, live: bool, on_share: OnShare) -> None:
        """Into a file that nothing is known of yet. Its old definition is put in place first: what an earlier try that was cut
        has written must not name the new file while that is filled anew."""
        intent = intent_of(operation)
        there, head = self._after(operation, volume)
        if not live:
            await self._remove(volume, there.spec.pool)
            source = Source(self.volumes.volume_path(volume), volume.spec.format)
            await self.volumes.fill(there, source, on_share, intent.bytes_per_s)
            return
        disk, dac_uid = self._disk(vm, there, head)
        if not await self.hypervisor.disk_jobs.copies(vm.uid, disk):
            await self.hypervisor.points.place(vm.uid, (self._disk(vm, volume)[0],), dac_uid)
            await self._remove(volume, there.spec.pool)
            await self.volumes.prepare(there)
        await self.hypervisor.disk_jobs.mirror(vm.uid, disk, dac_uid, intent.bytes_per_s, on_share)

    async def _flatten(self, vm: Vm, operation: Operation, volume: Volume, live: bool, on_share: OnShare) -> None:
        if live:
            disk, bytes_per_s = self._disk(vm, volume)[0].name, intent_of(operation).bytes_per_s
            await self.hypervisor.points.pull(vm.uid, disk, "", on_share, bytes_per_s)
        else:
            await self.volumes.stand_alone(volume, on_share, intent_of(operation).bytes_per_s)

    async def _stop(self, vm: Vm, step: StopDiskWork) -> None:
        """Of a copy that QEMU makes, the end is waited for: its file goes next."""
        await self._cancel(step.operation_uid)
        operation = next((o for o in self.cache.unfinished(vm.uid) if o.uid == step.operation_uid), None)
        intent = operation.spec.intent if operation is not None else None
        volume = self.cache.volumes.get(intent.volume_uid or "") if isinstance(intent, MoveVolume) else None
        disk = next((d.name for d in vm.spec.disks if volume is not None and d.volume_uid == volume.uid), None)
        if disk is not None:
            try:
                runs = step.thaw and vm.spec.power is Power.ON and _has_begun(operation)
                await self.hypervisor.disk_jobs.abandon(vm.uid, disk, runs=runs)
            except CorralError as error:
                if error.code not in ("domain-not-found", "wrong-state"):
                    raise
        self._seen.pop(step.operation_uid, None)

    async def _switch(self, vm: Vm, step: SwitchDisk, active: bool) -> None:
        operation, volume = self._operation(vm, step.operation_uid)
        disk, dac_uid = self._disk(vm, *self._after(operation, volume))
        if active:
            runs = vm.spec.power is Power.ON
            await self.hypervisor.disk_jobs.switch(vm.uid, disk, dac_uid, runs=runs)
        else:
            await self.hypervisor.points.place(vm.uid, (disk,), dac_uid)

    async def _seal(self, vm: Vm, step: SealDisk) -> None:
        """Between the switch and now the daemon may have died: the guest goes on, if it stands still for that."""
        disk, dac_uid = self._disk(vm, step.volume, step.layer)
        await self.hypervisor.points.place(vm.uid, (disk,), dac_uid)
        await self.hypervisor.points.thaw(vm.uid, frozen=False, runs=vm.spec.power is Power.ON)
        if step.layer is not None:
            await self.volumes.layers.write(step.layer)
        await self.volumes.grow(step.volume, in_use=True)  # which writes the sidecar, and nothing else

    async def _remove(self, volume: Volume, pool: str) -> None:
        """What lies in `pool` of it. Of one with layers its others stay, wherever they are."""
        try:
            self.volumes.check_pool(pool)
        except CorralError:  # it was deleted, once nothing lay in it
            return
        if volume.head_uid in self.cache.layers:
            await self.volumes.layers.remove(volume.head_uid, pool)
            await self.volumes.layers.forget_volume(volume.uid, pool)
        else:
            await self.volumes.remove(volume.uid, pool)

    # ---- within ----------------------------------------------------------------------------------------------------------

    async def _cancel(self, uid: str) -> None:
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=STOP_S)

    def _operation(self, vm: Vm, uid: str) -> tuple[Operation, Volume]:
        operation = next((found for found in self.cache.unfinished(vm.uid) if found.uid == uid), None)
        volume = self.cache.volumes.get(intent_of(operation).volume_uid or "") if operation is not None else None
        if operation is None or volume is None:
            raise CorralError("precondition-failed", f"move a disk of {vm.name}", "it is no longer asked for")
        return operation, volume

    def _path(self, operation: Operation) -> str:
        volume = self.cache.volumes.get(intent_of(operation).volume_uid or "")
        if volume is None:
            return ""
        try:
            return str(self.volumes.volume_path(self._after(operation, volume)[0]))
        except CorralError:  # its pool was deleted: no disk is there
            return ""

    def _after(self, operation: Operation, volume: Volume) -> tuple[Volume, Layer | None]:
        intent, head = intent_of(operation), self.cache.layers.get(volume.head_uid)
        pool = intent.pool if isinstance(intent, MoveVolume) else volume.spec.pool
        return volume.alone_in(pool, volume.status.path), head.alone_in(pool) if head is not None else None

    def _disk(self, vm: Vm, volume: Volume, head: Layer | None = None) -> tuple[DomainDisk, int | None]:
        """The volume's disk as it is with these."""
        around = self.cache.around
        volumes = {**around.volumes, volume.uid: volume}
        layers = around.layers if head is None else {**around.layers, head.uid: head}
        definition = build_definition(vm, replace(around, volumes=volumes, layers=layers), self.places())
        name = next(disk.name for disk in vm.spec.disks if disk.volume_uid == volume.uid)
        return next(disk for disk in definition.disks if disk.name == name), definition.dac_uid


def _has_begun(operation: Operation | None) -> bool:
    """The guest may stand still for it."""
    return operation is not None and any(step.name == SwitchDisk.NAME for step in operation.status.steps)
