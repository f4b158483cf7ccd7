"""Templates: frozen from a point in time, refreshed and removed; one at a time. A crash anywhere repeats from the start."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corral.agent.cache import Cache
from corral.agent.definition import Places
from corral.agent.executor import Drivers
from corral.agent.failures import ATTEMPTS_MAX, WAITED_FOR, backoff_s
from corral.agent.fork import template_files
from corral.agent.hidden_points import forgetting, is_forgotten
from corral.agent.operations import Progress, Shown, ended, ended_event, write_end
from corral.agent.queue import problem_of
from corral.agent.refresh import Refresher, forks_under_way
from corral.agent.template_watch import TemplateWatch
from corral.agent.view import Ending
from corral.clock import Clock
from corral.errors import CorralError
from corral.files import storage_error, write_atomic
from corral.hypervisor.base import DomainDisk
from corral.hypervisor.forking import Freeze, Frozen
from corral.hypervisor.forking import Template as Files
from corral.images.base import ImageLibrary
from corral.images.identity import build_preparation
from corral.log import logger
from corral.model.layer import Layer, LayerStatus
from corral.model.operation import (
    CreateTemplate,
    Operation,
    OperationState,
    Problem,
    RefreshTemplate,
)
from corral.model.snapshot import Snapshot
from corral.model.template import Template, TemplateDisk, TemplateStatus
from corral.names import new_uid
from corral.storage.layers import Backing
from corral.store.objects import Objects, Transaction

LOOK_S: Final = 0.2
"""How often it is looked whether the point in time was taken."""
MEMORY: Final = "memory"
NVRAM: Final = "nvram.fd"

PASSING: Final = frozenset({"hypervisor-error", "wrong-state", "domain-not-found"})

log = logger("agent.template")


@dataclass
class TemplateKeeper:
    """Works through the unfinished operations on templates."""

    objects: Objects
    cache: Cache
    drivers: Drivers
    library: ImageLibrary
    progress: Progress
    clock: Clock
    places: Callable[[], Places | None]
    """Known once the host has been looked at."""
    wake_layered: Callable[[], None]
    """VMs stand on layers that may be merged now."""
    refresher: Refresher = field(init=False)
    watch: TemplateWatch = field(init=False)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _tries: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of operations that wait: how often they failed, and when to look again (monotonic)."""

    def __post_init__(self) -> None:
        self.refresher = Refresher(self.objects, self.cache, self.progress, self.clock)
        self.watch = TemplateWatch(self.objects, self.cache, self.drivers.hypervisor, self.clock, self.places)

    def wake(self) -> None:
        self._wanted.set()

    async def run(self) -> None:
        """What failed waits for its time, whatever is written meanwhile."""
        await self.cache.loaded.wait()
        while True:
            self._wanted.clear()
            for uid in [operation.uid for operation in self._pending()]:
                # As it is now: one that came before it may have changed it.
                operation = next((found for found in self._pending() if found.uid == uid), None)
                if operation is not None and self._due_s(operation) <= self.clock.monotonic_s():
                    await self._try(operation)
            waiting = [self._due_s(operation) for operation in self._pending()]
            pause_s = max(0.0, min(waiting) - self.clock.monotonic_s()) if waiting else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()

    def _due_s(self, operation: Operation) -> float:
        return self._tries.get(operation.uid, (0, 0.0))[1]

    async def _try(self, operation: Operation) -> None:
        attempts = self._tries.get(operation.uid, (0, 0.0))[0]
        try:
            if await self._one(operation):
                self._tries.pop(operation.uid, None)
                self.wake_layered()
            else:
                self._tries[operation.uid] = (0, self.clock.monotonic_s() + LOOK_S)
        except CorralError as error:
            attempts += 1
            self._tries[operation.uid] = (attempts, self.clock.monotonic_s() + backoff_s(attempts))
            log.warning("a template waits", template=operation.spec.target_name, code=error.code)
            shown = Shown(f"waiting: {error.code}", self.clock.now(), detail=error.reason, attempts=attempts)
            self.progress.show(operation, shown)
            await self.cache.refresh(Template, operation.spec.target_uid)
            await self.cache.refresh(Operation, operation.uid)
            self.wake_layered()  # it may have happened all the same

    def _files(self, template: Template) -> Files:
        places = self.places()
        if places is None:
            raise CorralError("hypervisor-unavailable", f"look at {template.name}", "this host was not looked at yet")
        return template_files(template, places)

    def _pending(self) -> list[Operation]:
        found = [o for o in self.cache.all_unfinished() if o.spec.target_kind == "template"]
        return sorted(found, key=lambda o: (o.created_at, o.uid))

    async def _one(self, operation: Operation) -> bool:
        """False: it waits for something else."""
        template = self.cache.templates.get(operation.spec.target_uid)
        intent = operation.spec.intent
        if isinstance(intent, RefreshTemplate):
            return await self.refresher.go_on(operation, intent)
        if template is None:
            gone = Problem(code="template-not-found", asked=operation.spec.target_name, reason="the template is gone")
            failed = isinstance(intent, CreateTemplate)
            await self._end(operation, OperationState.FAILED if failed else OperationState.SUCCEEDED, problem=gone)
            return True
        if isinstance(intent, CreateTemplate):
            return await self._create(operation, intent, template)
        if forks_under_way(self.cache, template.uid) or self._is_waited_for(template):
            return False
        await self._remove(operation, OperationState.SUCCEEDED, template)
        return True

    def _is_waited_for(self, template: Template) -> bool:
        """Domains lie on its layers that are yet to be thrown away."""
        return any(slot.spec.template_uid == template.uid for slot in self.cache.slots.values())

    # ---- made ----

    async def _create(self, operation: Operation, intent: CreateTemplate, template: Template) -> bool:
        if operation.spec.cancel_requested_at is not None:
            await self._remove(operation, OperationState.CANCELLED, template)
            return True
        snapshot = self.cache.snapshots.get(template.spec.snapshot_uid)
        if snapshot is None or not snapshot.status.ready:
            return await self._wait_for_point(operation, intent, template)
        self.progress.show(operation, Shown("freezing it", self.clock.now()))
        try:
            template, layers = await self._with_layers(template, snapshot)
            frozen = await self._freeze(template, snapshot, layers)
        except CorralError as error:
            # A daemon that died in the middle may have left libvirt with half a guest, which is in the way for a moment.
            tried = self._tries.get(operation.uid, (0, 0.0))[0] + 1
            if error.code in WAITED_FOR or (error.code in PASSING and tried < ATTEMPTS_MAX):
                raise
            await self._remove(operation, OperationState.FAILED, template, problem_of(error))
            return True
        seen = snapshot.status
        status = TemplateStatus(ready=True, taken_at=seen.taken_at, pause_ms=seen.pause_ms)
        if frozen is not None:
            status = status.model_copy(
                update={
                    "agent": frozen.agent,
                    "key": frozen.key,
                    "digest": frozen.digest,
                    "memory_bytes": frozen.memory_bytes,
                    "stored_bytes": frozen.stored_bytes,
                }
            )
        await self._end(operation, OperationState.SUCCEEDED, made=template.model_copy(update={"status": status}))
        return True

    async def _wait_for_point(self, operation: Operation, intent: CreateTemplate, template: Template) -> bool:
        source = await self.objects.get(Operation, intent.snapshot_operation_uid)
        if source is not None and not source.status.state.final:
            phase = source.status.phase or "waiting for the VM's earlier requests"
            self.progress.show(operation, Shown(phase, self.clock.now()))
            return False
        if source is not None and source.status.state is OperationState.SUCCEEDED:
            await self.cache.refresh(Snapshot, template.spec.snapshot_uid)
            found = self.cache.snapshots.get(template.spec.snapshot_uid)
            if found is not None and found.status.ready:
                return False
        asked = f"make template {template.name}"
        reason = "its point in time could not be taken"
        problem = source.status.error if source is not None else None
        why = problem or Problem(code="operation-failed", asked=asked, reason=reason)
        await self._remove(operation, OperationState.FAILED, template, why)
        return True

    async def _with_layers(self, template: Template, snapshot: Snapshot) -> tuple[Template, tuple[Layer, ...]]:
        """On record before there is a file of them."""
        gone = next((disk.layer_uid for disk in snapshot.spec.disks if disk.layer_uid not in self.cache.layers), "")
        if gone:
            reason = f"layer {gone}, which its point in time stands on, is missing"
            raise CorralError("chain-broken", f"make template {template.name}", reason)
        if not template.spec.disks and snapshot.spec.disks:
            layers = tuple(self._layer(snapshot, number) for number in range(len(snapshot.spec.disks)))
            disks = tuple(
                TemplateDisk(name=disk.name, layer_uid=layer.uid, size_bytes=disk.size_bytes)
                for disk, layer in zip(snapshot.spec.disks, layers, strict=True)
            )
            spec = template.spec.model_copy(update={"disks": disks, "vm_spec": snapshot.spec.vm_spec})
            template = template.model_copy(update={"spec": spec})
            transaction = self.objects.transaction()
            for layer in layers:
                transaction.create(layer)
            transaction.update(template)
            revision = (await transaction.commit()).revision
            template = template.model_copy(update={"revision": revision})
            self.cache.put(template)
            for layer in layers:
                self.cache.put(layer.model_copy(update={"revision": revision}))
        elif template.spec.vm_spec is None:
            spec = template.spec.model_copy(update={"vm_spec": snapshot.spec.vm_spec})
            template = template.model_copy(update={"spec": spec})
        return template, tuple(self.cache.layers[disk.layer_uid] for disk in template.spec.disks)

    def _layer(self, snapshot: Snapshot, number: int) -> Layer:
        disk = snapshot.spec.disks[number]
        below = self.cache.layers[disk.layer_uid]
        made = below.overlay(new_uid(), disk.volume_uid, self.clock.now(), project=snapshot.project)
        spec = made.spec.model_copy(update={"size_bytes": disk.size_bytes})
        return made.model_copy(update={"spec": spec, "status": LayerStatus(ready=True)})

    async def _freeze(self, template: Template, snapshot: Snapshot, layers: tuple[Layer, ...]) -> Frozen | None:
        for layer in layers:
            parent = self.cache.layers[layer.spec.parent_uid or ""]
            below = Backing(self.drivers.volumes.path(parent.uid, parent.spec.pool), "qcow2")
            await self.drivers.volumes.layers.make_anew(layer, below)
        directory, files = self.drivers.volumes.layers.point_dir(snapshot.uid), self._files(template)
        if not template.spec.hot:
            if "nvram" in snapshot.status.kept:
                await asyncio.to_thread(_keep_variables, directory / NVRAM, files.directory)
            return None
        disks = tuple(
            DomainDisk(
                disk.name,
                str(self.drivers.volumes.path(layer.uid, layer.spec.pool)),
                "qcow2",
                backing=self._below(layer),
            )
            for disk, layer in zip(template.spec.disks, layers, strict=True)
        )
        nvram = directory / NVRAM if "nvram" in snapshot.status.kept else None
        return await self.drivers.hypervisor.forking.freeze(
            Freeze(
                template.uid,
                directory / MEMORY,
                disks,
                files.directory,
                files.run_dir,
                nvram,
                build_preparation(),
            )
        )

    def _below(self, layer: Layer) -> tuple[tuple[str, str], ...]:
        chain = self.cache.layer_tree().chain(layer.uid)[1:]
        paths = [(str(self.drivers.volumes.path(found.uid, found.spec.pool)), "qcow2") for found in chain]
        image = self.cache.images.get(chain[-1].spec.image_uid or "") if chain else None
        facts = image.status.facts if image is not None else None
        disk = self.library.files(facts).disk if facts is not None else None
        if disk is not None and facts is not None:
            paths.append((str(disk), facts.disk_format))
        return tuple(paths)

    # ---- removed ----

    async def _remove(
        self, operation: Operation, state: OperationState, template: Template, problem: Problem | None = None
    ) -> None:
        """Its memory, and of its layers and those below what no VM stands on; the rest goes with the last that does."""
        await self.drivers.hypervisor.forking.discard(self._files(template))
        gone = self.cache.layer_tree().without_held(disk.layer_uid for disk in template.spec.disks)
        for layer in gone:
            await self.drivers.volumes.layers.remove(layer.uid, layer.spec.pool)
        await self._end(operation, state, removed=template, layers=gone, problem=problem)

    # ---- the end ----

    async def _end(
        self,
        operation: Operation,
        state: OperationState,
        *,
        made: Template | None = None,
        removed: Template | None = None,
        layers: tuple[Layer, ...] = (),
        problem: Problem | None = None,
    ) -> None:
        """The operation's end and what becomes of the template, together. Its point in time is needed no more."""
        self.progress.discard(operation.uid)
        transaction = self.objects.transaction()
        now = self.clock.now()
        problem = problem if state is OperationState.FAILED else None
        done = ended(Ending(operation, state, problem), now, (), now)
        if not write_end(transaction, self.cache, done):
            return
        if made is not None:
            transaction.update(made)
        if removed is not None:
            transaction.delete(removed)
            for layer in layers:
                transaction.delete(layer)
        forgotten = self._forget_point(transaction, operation, made or removed)
        transaction.event(
            ended_event(
                operation,
                state,
                problem,
                "TemplateCreated" if isinstance(operation.spec.intent, CreateTemplate) else "TemplateDeleted",
                self.clock.now(),
            )
        )
        committed = await transaction.commit()
        self.cache.put(done.model_copy(update={"revision": committed.revision}))
        if made is not None:
            self.cache.put(made.model_copy(update={"revision": committed.revision}))
        if removed is not None:
            self.cache.forget(Template, removed.uid)
            for layer in layers:
                self.cache.forget(Layer, layer.uid)
        if forgotten is not None:
            self.cache.put(forgotten.model_copy(update={"revision": committed.revision}))

    def _forget_point(
        self, transaction: Transaction, operation: Operation, template: Template | None
    ) -> Operation | None:
        """An operation of the source VM's, which sees to its layers."""
        vm = self.cache.vms.get(template.spec.source_uid) if template is not None else None
        if template is None or vm is None or vm.being_deleted:
            return None
        if template.spec.snapshot_uid not in self.cache.snapshots:
            return None
        if is_forgotten(self.cache, vm, template.spec.snapshot_uid):
            return None
        spec = operation.spec
        forget = forgetting(vm, template.spec.snapshot_uid, spec.requested_by, spec.request_id, self.clock.now())
        transaction.create(forget)
        return forget


def _keep_variables(source: Path, directory: Path) -> None:
    """Those of UEFI, for VMs that boot from the template's disks."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(directory / NVRAM, source.read_bytes())
    except OSError as error:
        raise storage_error(f"keep the UEFI variables in {directory}", error) from error
