"""One VM's turn: observe, plan, run the steps, write what was seen and what has ended."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from corral.agent.cache import Cache
from corral.agent.definition import build_definition, recovery_json, under_other_accelerator
from corral.agent.executor import Executor
from corral.agent.failures import (
    WAITED_FOR,
    Verdict,
    backoff_s,
    is_removing,
    judge,
    owner,
    plan_cancelled,
    plan_failure,
)
from corral.agent.layer_tree import LayerTree
from corral.agent.memory import Found, Memory, Situation
from corral.agent.operations import Progress, Shown, running
from corral.agent.plan_snapshot import begun_heads
from corral.agent.planner import plan
from corral.agent.queue import cancelled, is_unwanted, problem_of, sorted_operations, visible, wish_of
from corral.agent.record import Recorder
from corral.agent.steps import TIDYING, CopyVolume, MergeLayer, RemoveLayer, SinkLayer, Step, operation_of
from corral.agent.view import Plan, Settle, View, asked_ago_s, remembered
from corral.clock import Clock
from corral.errors import CorralError
from corral.hypervisor.base import DomainDefinition, ObservedDomain
from corral.log import logger
from corral.model import limits
from corral.model.operation import Operation, OperationState, StepKind, StepRecord, UpdateVm
from corral.model.vm import Vm

ROUNDS_MAX: Final = 16
RACES_MAX: Final = 5
WISH_LOOK_S: Final = 0.1
TIDY_AGAIN_S: Final = 60.0
CUT_AGAIN_S: Final = 1.0

log = logger("agent.vm")


class Reconciler:
    """Brings one VM nearer to its wish. The caller sees to it that a VM has one turn at a time."""

    def __init__(
        self,
        cache: Cache,
        executor: Executor,
        recorder: Recorder,
        progress: Progress,
        clock: Clock,
        definition_hash: Callable[[DomainDefinition], str],
    ) -> None:
        self.cache = cache
        self.executor = executor
        self.recorder = recorder
        self.progress = progress
        self.clock = clock
        self.definition_hash = definition_hash
        self._born_at = clock.now()

    async def turn(self, vm: Vm, memory: Memory, situation: Situation, snapshot: Found | None) -> float | None:
        """Until there is nothing to do now. Returns when to look again (monotonic), None for `when something happens`."""
        remembered = memory.remembered() if snapshot is None else None
        rounds = 0
        while (rounds := rounds + 1) <= ROUNDS_MAX:
            view = await self._look(vm, memory, situation, snapshot or remembered)
            snapshot, idle = None, not view.operations and not memory.known.asked and not view.tree.layers
            if remembered is None and idle and memory.nothing_new(vm.revision, view.domain):
                return None
            memory.wish = wish_of(vm, view.operations)
            decided = plan(view)
            memory.acting = decided.operation_uid
            enough, remembered = remembered is None or decided.repeatable, None
            if not enough:
                continue
            if decided.steps and not await self._run(view, decided, memory):
                decided = replace(decided, again=True)
            if not decided.again and await self._settle(view, decided, memory):
                return decided.wait.until_s if decided.wait is not None else None
            if decided.settle.writes:
                rounds = 0  # layer by layer, it comes to an end
            found = self.cache.vms.get(vm.uid)
            if found is None:
                return None
            vm = found
        raise CorralError("internal", f"reconcile {vm.name}", f"no end after {ROUNDS_MAX} rounds")

    async def watch(self, vm: Vm, memory: Memory, situation: Situation) -> None:
        """Between two tries something happened to the domain: it is recorded and judged, and no step is taken."""
        if memory.problem is None:
            return
        attempts, tries = memory.attempts, memory.tries
        view = await self._look(vm, memory, situation, None)
        decided = plan(view)
        settle = Settle(refused=memory.problem) if decided.steps else replace(decided.settle, refused=memory.problem)
        await self._settle(view, replace(decided, settle=settle), memory)
        memory.attempts, memory.tries = attempts, tries  # nothing was tried

    async def failed(self, vm: Vm, memory: Memory, situation: Situation, error: CorralError) -> float:
        """A step, or a look, failed: end what cannot go on, or say what is waited for. Returns when to try again."""
        looked = memory.looked if error.code not in WAITED_FOR else None
        view = self._view(vm, looked.domain if looked is not None else None, memory, situation)
        queue = sorted_operations(view.operations)
        if error.code == "precondition-failed" and memory.races < RACES_MAX:
            memory.races += 1
            await self._refresh(vm)
            return self.clock.monotonic_s()
        memory.attempts += 1
        memory.tries += error.code not in WAITED_FOR
        removing = is_removing(view, queue)
        acting = [o for o in (*queue.imperative, *queue.disks) if o.uid == memory.acting]
        begun = next((o for o in acting if o in queue.disks or begun_heads(view, o)), None)
        current = begun or owner(queue)
        problem = problem_of(error)
        taken = plan_cancelled(view, queue, untouched=self._untouched(queue.create, memory))
        if error.code in WAITED_FOR and taken is not None:
            memory.attempts = memory.tries = 0
            await self.recorder.settle_unseen(view, taken.settle, [])
            return self.clock.monotonic_s()
        inherited = current is not None and current.created_at < self._born_at
        verdict = judge(error, memory.tries, removing=removing, inherited=inherited)
        if current is not None and verdict is Verdict.GIVE_UP:
            log.warning("operation fails", vm=vm.name, operation=current.uid, code=error.code, reason=error.reason)
            given_up = plan_failure(view, queue, problem)
            memory.attempts = memory.tries = 0
            if begun is not None:
                await self.recorder.begin_undo(begun, problem)
            elif given_up is None:
                await self.recorder.begin_undo(queue.create, problem)  # type: ignore[arg-type]
            else:
                await self._settle_failed(view, given_up.settle, memory, self._journal(memory, current), looked)
            return self.clock.monotonic_s()
        pause_s = backoff_s(memory.attempts)
        memory.retry_at_s = self.clock.monotonic_s() + pause_s
        memory.retry_for = wish_of(vm, view.operations)
        if current is not None:
            detail = f"{error.reason} [{error.code}]; tried {memory.attempts} times"
            if cancelled(queue.create):
                detail = f"cancelled; what was made for it is removed as soon as possible: {detail}"
            phase = f"{'undoing' if removing and not vm.being_deleted else 'waiting'}: {error.code}"
            self.progress.show(current, replace(self._shown(memory, current, phase), detail=detail))
        memory.problem = problem if looked is not None and not removing else None
        if memory.problem is not None:
            await self._settle_failed(view, Settle(refused=problem), memory, [], looked)
        elif error.code in WAITED_FOR or memory.attempts == 1:
            await self.recorder.note_failure(vm, error)
        return memory.retry_at_s

    def _untouched(self, create: Operation | None, memory: Memory) -> bool:
        """Nothing has been made for it: this process knows its whole life, and has taken no step."""
        if create is None or create.status.steps or not self.cache.is_new(create):
            return False
        return memory.journal_of != create.uid or not memory.journal

    async def _settle_failed(
        self, view: View, settle: Settle, memory: Memory, journal: list[StepRecord], looked: Found | None
    ) -> None:
        """With what was seen of the domain before the failure, if it was looked at."""
        if looked is not None:
            await self.recorder.settle(view, settle, memory.guest, journal, memory.began_at)
        else:
            await self.recorder.settle_unseen(view, settle, journal)

    def wish(self, uid: str) -> str:
        """What is wished of a VM now; compared with `Memory.wish`."""
        vm = self.cache.vms.get(uid)
        return wish_of(vm, visible(vm, self.cache.unfinished(uid))) if vm is not None else ""

    # ---- looking ----

    async def _look(self, vm: Vm, memory: Memory, situation: Situation, snapshot: Found | None) -> View:
        answered, memory.answered = memory.answered, None
        # An answer may be older than what was heard since: that is looked at once this turn is over.
        memory.dirty = memory.dirty and answered is not None
        memory.changed, memory.looked = False, None
        memory.looked = snapshot or answered or Found(await self._observe(vm))
        await self.cache.know_deletion(vm)
        return self._view(vm, memory.looked.domain, memory, situation)

    async def _observe(self, vm: Vm) -> ObservedDomain | None:
        return await self.executor.bounded(self.executor.drivers.hypervisor.observe(vm.uid), f"look at {vm.name}")

    def _view(self, vm: Vm, domain: ObservedDomain | None, memory: Memory, situation: Situation) -> View:
        if memory.json[0] != vm.revision:
            memory.json = (vm.revision, recovery_json(vm))
        wanted_json = memory.json[1]
        started_at = vm.status.started_at
        operations = visible(vm, self.cache.unfinished(vm.uid))
        long_ago = started_at is not None and (self.clock.now() - started_at).total_seconds()
        return View(
            vm=vm,
            domain=domain,
            operations=operations,
            volumes=self.cache.volumes_of(vm),
            wanted_hashes=self._hashes(vm, domain, memory, wanted_json),
            wanted_json=wanted_json,
            installation_id=situation.installation_id,
            boot_id=situation.boot_id,
            now_s=self.clock.monotonic_s(),
            known=memory.known,
            ran_long=bool(long_ago) and float(long_ago) > limits.RESTART_BACKOFF_MAX_S,
            draining=situation.draining,
            tree=self.cache.layer_tree() if self.cache.is_layered(vm) else LayerTree(),
            points=self.cache.points_of(vm),
            taken=self.executor.points.taken.get(memory.acting),
            disk_work=self.executor.disks.seen(operations),
            freezing=self.cache.frozen_of(vm) if vm.being_deleted else (),
        )

    def _hashes(self, vm: Vm, domain: ObservedDomain | None, memory: Memory, wanted_json: str) -> frozenset[str]:
        """What the document of a domain that is one may hash to; kept while the wish and the domain's name are the same."""
        if domain is None or domain.waiting:
            return frozenset()
        places = self.executor.places
        if vm.spec.adopted or places is None:
            return frozenset({domain.definition_hash})
        heads = ",".join(f"{volume.head_uid}@{volume.spec.pool}" for volume in self.cache.volumes_of(vm).values())
        key = f"{domain.name}\n{places.accelerator}\n{heads}\n{wanted_json}"
        if memory.hashes[0] != key:
            try:
                definition = replace(build_definition(vm, self.cache.around, places), name=domain.name)
            except CorralError:  # something that it needs is gone: to define it will say so, to look at it must not
                return frozenset()
            other = under_other_accelerator(definition)
            memory.hashes = (key, frozenset({self.definition_hash(definition), self.definition_hash(other)}))
        return memory.hashes[1]

    # ---- doing ----

    async def _run(self, view: View, decided: Plan, memory: Memory) -> bool:
        """All steps; False if the wish changed on the way (a safe point to think again)."""
        vm = view.vm
        queue = sorted_operations(view.operations)
        named = next((o for o in view.operations if o.uid == decided.operation_uid), None)
        current = named or owner(queue)
        wish = wish_of(vm, view.operations)
        memory.seen = None
        if current is queue.delete and current is not None and current.status.state is OperationState.ACCEPTED:
            await self._begin_delete(current, memory)
        for step in decided.steps:
            if step is not decided.steps[0] and self.wish(vm.uid) != wish:
                return False
            own = next((found for found in view.operations if found.uid == operation_of(step)), current)
            await self._run_one(step, view, own, memory)
        memory.attempts = memory.tries = memory.races = 0
        return True

    async def _begin_delete(self, operation: Operation, memory: Memory) -> None:
        """From here on a deletion cannot be cancelled; said durably, before anything is removed."""
        await self.recorder.journal(running(operation, self._shown(memory, operation, "deleting")))

    async def _run_one(self, step: Step, view: View, current: Operation | None, memory: Memory) -> None:
        began = StepRecord.model_construct(name=step.NAME, kind=step.KIND, started_at=self.clock.now(), ended_at=None)
        if current is not None:
            self._journal(memory, current).append(began)
            shown = self._shown(memory, current, step.PHASE)
            if step.KIND is StepKind.ONCE or step.DURABLE:
                await self.recorder.journal(running(current, shown))
            else:
                self.progress.show(current, shown)
            if step.KIND is StepKind.ONCE:
                memory.known = replace(memory.known, reboot_asked_s=self.clock.monotonic_s(), rebooted=False)
        domain_name = view.domain.name if view.domain is not None else view.vm.domain_name
        memory.answered = None
        try:
            answer = await self._effect(step, view, domain_name, current, memory)
        except CorralError as error:
            if isinstance(step, TIDYING) and current is None and not view.vm.being_deleted:
                self._postpone(step, view, error, memory)
                return
            if step.KIND is StepKind.ONCE and current is not None:
                await self._once_failed(view, current, error, memory)
                return
            raise
        memory.answered = Found(answer) if answer is not None else None
        if memory.journal and memory.journal[-1] is began:
            memory.journal[-1] = began.model_copy(update={"ended_at": self.clock.now()})
        power = sorted_operations(view.operations).power
        on_behalf = power.uid if power is not None else ""
        ago_s = asked_ago_s(power, self.clock.now())
        memory.known = remembered(memory.known, step, on_behalf, self.clock.monotonic_s(), ago_s)

    async def _effect(
        self, step: Step, view: View, domain_name: str, current: Operation | None, memory: Memory
    ) -> ObservedDomain | None:
        merged = step.child.spec.volume_uid or "" if isinstance(step, MergeLayer | SinkLayer) else ""

        def on_share(share: float) -> None:
            if merged:
                self.progress.show_merge(merged, share)
            elif current is not None:
                self.progress.show(current, replace(self._shown(memory, current, step.PHASE), progress=share))

        run = self.executor.run(step, view.vm, active=view.active, domain_name=domain_name, on_share=on_share)
        if not isinstance(step, MergeLayer | SinkLayer | CopyVolume):
            return await run
        # These may take their time: whoever wishes anything of this VM meanwhile does not wait for it. But for a disk that is
        # being copied: all but the VM's end needs that.
        wish, work = wish_of(view.vm, view.operations), asyncio.ensure_future(run)
        try:
            while not (await asyncio.wait([work], timeout=WISH_LOOK_S))[0]:
                vm = self.cache.vms.get(view.vm.uid)
                copied = isinstance(step, CopyVolume) and not is_unwanted(vm, self.cache.unfinished(view.vm.uid))
                if not copied and self.wish(view.vm.uid) != wish:
                    raise CorralError("wrong-state", step.PHASE, "something else is wished of its VM")
            return work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
            if merged:
                self.progress.show_merge(merged, None)

    def _postpone(self, step: Step, view: View, error: CorralError, memory: Memory) -> None:
        """What is only tidying up disturbs nobody where it fails."""
        layer = step.layer if isinstance(step, RemoveLayer) else getattr(step, "middle", None)
        uid = layer.uid if layer is not None else ""
        log.info("a layer stays for now", vm=view.vm.name, layer=uid, code=error.code, reason=error.reason)
        pause_s = CUT_AGAIN_S if error.code == "wrong-state" else TIDY_AGAIN_S  # something else came first
        postponed = {**memory.known.postponed, uid: self.clock.monotonic_s() + pause_s}
        memory.known = replace(memory.known, postponed=postponed)

    async def _once_failed(self, view: View, current: Operation, error: CorralError, memory: Memory) -> None:
        """It may have happened, so it is not tried again."""
        failure = plan_failure(view, sorted_operations((current,)), problem_of(error))
        assert failure is not None
        await self.recorder.settle_unseen(view, failure.settle, self._journal(memory, current))

    def _journal(self, memory: Memory, operation: Operation) -> list[StepRecord]:
        if memory.journal_of != operation.uid:
            memory.journal_of = operation.uid
            memory.journal = list(operation.status.steps)
            memory.began_at = self.clock.now()
        return memory.journal

    def _shown(self, memory: Memory, operation: Operation, phase: str) -> Shown:
        steps = tuple(self._journal(memory, operation))
        return Shown(phase, memory.began_at or self.clock.now(), steps, attempts=memory.attempts)

    # ---- writing ----

    async def _settle(self, view: View, decided: Plan, memory: Memory) -> bool:
        """Write what was seen; False if there is more to be done at once."""
        named = next((o for o in view.operations if o.uid == decided.operation_uid), None)
        current = named or owner(sorted_operations(view.operations))
        if decided.wait is not None and current is not None:
            shown = self._shown(memory, current, decided.wait.phase)
            self.progress.show(current, replace(shown, progress=decided.wait.progress))
        journal = self._journal(memory, current) if current is not None else []
        if view.active and any(isinstance(ending.operation.spec.intent, UpdateVm) for ending in decided.settle.endings):
            await self.executor.bounded(self.executor.guard(view.vm), f"guard {view.vm.name}")
        guest = memory.guest
        settled = await self.recorder.settle(view, decided.settle, guest, journal, memory.began_at)
        settle = decided.settle
        stop_seen = view.active or settle.reached or settle.restarts is not None
        memory.known = replace(
            memory.known,
            started=memory.known.started and settle.keep_started,
            made=memory.known.made if settled is None else frozenset(),
            removed=memory.known.removed if settled is None else frozenset(),
            merged=memory.known.merged if settled is None else frozenset(),
            grown=memory.known.grown if settled is None else frozenset(),
            stop_cause=memory.known.stop_cause
            if settle.keep_started or not stop_seen
            else type(view.known.stop_cause).NONE,
        )
        if settle.restarts and decided.wait is not None:
            memory.known = replace(memory.known, restart_at_s=decided.wait.until_s)
        if settle.endings:
            ended = {ending.operation.uid for ending in settle.endings}
            done = frozenset(found for found in memory.known.steps_done if found[0] not in ended)
            once_done = memory.known.once_done - ended
            memory.known = replace(memory.known, asked=None, once_done=once_done, steps_done=done)
            self.executor.points.forget(ended)
            self.executor.disks.forget(ended)
        memory.attempts = memory.tries = memory.races = 0
        if settle.forget or settled is None:
            return True
        remaining = bool(self.cache.unfinished(view.vm.uid)) and decided.wait is None
        if settle.more or settle.keep_started or (settle.power is not None and not settle.reached) or remaining:
            return False
        looked = (settled.revision, view.domain, view.known.queued_for_boot, guest)
        memory.seen = looked if decided.wait is None else None
        return True

    async def _refresh(self, vm: Vm) -> None:
        """Read anew what a lost race was about."""
        for operation in self.cache.unfinished(vm.uid):
            await self.cache.refresh(Operation, operation.uid)
        for volume in self.cache.volumes_of(vm).values():
            await self.cache.refresh(type(volume), volume.uid)
        for found in (*self.cache.points_of(vm).values(), *self.cache.layers_of(vm)):
            await self.cache.refresh(type(found), found.uid)
        await self.cache.refresh(Vm, vm.uid)
