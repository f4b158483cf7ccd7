"""A model world: what the planner's steps do, as plain values."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from corral.agent import steps as s
from corral.agent.definition import build_metadata, recovery_json
from corral.agent.planner import plan
from corral.agent.status import GuestKnown, HostKnown, observed_status
from corral.agent.view import ACTIVE, Known, Plan, View, remembered
from corral.hypervisor.base import ObservedDomain, StopCause
from corral.model.operation import CreateVm, Intent, Operation, OperationSpec, OperationState, StepKind, StepRecord
from corral.model.vm import (
    BootOrder,
    CloudInitSpec,
    DiskSpec,
    NicSpec,
    Placement,
    Power,
    RunPolicy,
    Vm,
    VmSpec,
    VmState,
)
from corral.model.volume import Volume, VolumeSpec, VolumeStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VM, ROOT, DATA, NET = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 5))
HERE = "installation"


@dataclass
class ModelWorld:
    """One VM, its volumes and operations, and the world below."""

    vm: Vm | None
    volumes: dict[str, Volume]
    operations: list[Operation] = field(default_factory=list)
    domain: ObservedDomain | None = None
    disks: set[str] = field(default_factory=set)
    seed: bool = False
    reserved: bool = False
    known: Known = field(default_factory=Known)
    now_s: float = 1000.0
    boot_id: str = "boot"
    obeys: bool = True
    taken: list[s.Step] = field(default_factory=list)
    ended: dict[str, OperationState] = field(default_factory=dict)
    applied: str = ""
    """The spec that the running domain was last brought to."""

    def view(self) -> View:
        assert self.vm is not None
        unfinished = tuple(o for o in self.operations if not o.status.state.final)
        return View(
            vm=self.vm,
            domain=self.domain,
            operations=unfinished,
            volumes=self.volumes,
            wanted_hashes=frozenset({"hash"}),
            wanted_json=recovery_json(self.vm),
            installation_id=HERE,
            boot_id=self.boot_id,
            now_s=self.now_s,
            known=self.known,
        )

    def once(self) -> Plan:
        """One look, its steps, and what is written."""
        view = self.view()
        decided = plan(view)
        power = next((o.uid for o in reversed(view.operations) if o.spec.intent.verb == "shutdown"), "")
        for step in decided.steps:
            if step.KIND is StepKind.ONCE:
                self._journal(step)
            self.apply(step)
            self.known = remembered(self.known, step, power, self.now_s)
        if not decided.again:
            self._write(view, decided)
            if decided.wait is not None:
                self.now_s = max(self.now_s, decided.wait.until_s)
        return decided

    def run(self, rounds: int = 60) -> int:
        """Until nothing changes; how many rounds it took."""
        for count in range(rounds):
            if self.vm is None:
                return count
            before = (self.vm, self.domain, self.known, len(self.ended), self.now_s)
            decided = self.once()
            if not decided.again and before == (self.vm, self.domain, self.known, len(self.ended), self.now_s):
                return count
        raise AssertionError(f"no end after {rounds} rounds: {self.taken[-10:]}")

    def apply(self, step: s.Step) -> None:
        self.taken.append(step)
        match step:
            case s.MakeVolume(volume_uid=uid):
                self.disks.add(uid)
            case s.RemoveVolume(volume_uid=uid):
                self.disks.discard(uid)
            case s.WriteSeed():
                self.seed = True
            case s.RemoveSeed():
                self.seed = False
            case s.Reserve():
                self.reserved = True
            case s.Release():
                self.reserved = False
            case s.Define():
                state = self.domain.state if self.domain else VmState.SHUT_OFF
                live = self.domain.live_spec_json if self.domain else None
                self.domain = self.observed(state, live_spec_json=live)
            case s.ApplyLive():
                self.applied = recovery_json(self.vm)
                self.domain = replace(self.domain, live_spec_json=self.applied)
            case s.SetMetadata():
                live = recovery_json(self.vm) if self.domain.state in ACTIVE else None
                self.domain = replace(self.domain, metadata=build_metadata(self.vm, HERE), live_spec_json=live)
            case s.Rename():
                self.domain = replace(self.domain, name=self.vm.domain_name)
            case s.Start():
                live = self.domain.metadata.spec_json
                self.domain = replace(self.domain, state=VmState.RUNNING, has_managed_save=False, live_spec_json=live)
            case s.Resume():
                self.domain = replace(self.domain, state=VmState.RUNNING)
            case s.Suspend():
                self.domain = replace(self.domain, state=VmState.PAUSED, reason="user")
            case s.Save():
                self.domain = replace(self.domain, state=VmState.SHUT_OFF, has_managed_save=True)
            case s.Destroy():
                self.domain = replace(self.domain, state=VmState.SHUT_OFF)
            case s.AskShutdown():
                asks = sum(isinstance(taken, s.AskShutdown) for taken in self.taken)
                if self.obeys or asks > 5:  # every guest goes some day
                    self.domain = replace(self.domain, state=VmState.SHUT_OFF, stop_cause=StopCause.GUEST)
            case s.Undefine():
                self.domain = None
            case s.Reboot():
                self.known = replace(self.known, rebooted=True)

    def observed(self, state: VmState, **changes: object) -> ObservedDomain:
        domain = ObservedDomain(
            uid=VM,
            name=self.vm.domain_name,
            state=state,
            reason="user" if state is VmState.PAUSED else "",
            stop_cause=StopCause.NONE,
            persistent=True,
            metadata=build_metadata(self.vm, HERE),
            autostart=False,
            has_managed_save=False,
            vcpus=1,
            memory_mib=1024,
            definition_hash="hash",
            live_spec_json=recovery_json(self.vm) if state in ACTIVE else None,
        )
        return replace(domain, **changes)

    def request(self, intent: Intent, tracks: int = 0, previous: str = "", **status: object) -> Operation:
        uid = f"00000000-0000-4000-9000-{len(self.operations):012d}"
        operation = Operation(
            name=uid,
            uid=uid,
            created_at=NOW,
            spec=OperationSpec(
                intent=intent,
                target_kind="vm",
                target_uid=VM,
                target_name="web",
                tracks_generation=tracks,
                previous_power=previous,
                requested_by="local:root",
                request_id="r",
            ),
        )
        operation = operation.model_copy(update={"status": operation.status.model_copy(update=status)})
        self.operations.append(operation)
        return operation

    def _journal(self, step: s.Step) -> None:
        record = StepRecord(name=step.NAME, kind=StepKind.ONCE, started_at=NOW)
        self.operations = [
            o.model_copy(update={"status": o.status.model_copy(update={"steps": (record,)})})
            if o.uid == step.operation_uid
            else o
            for o in self.operations
        ]

    def _write(self, view: View, decided: Plan) -> None:
        settle = decided.settle
        for ending in settle.endings:
            assert ending.operation.uid not in self.ended, "an operation ends once"
            self.ended[ending.operation.uid] = ending.state
        self.operations = [
            o.model_copy(update={"status": o.status.model_copy(update={"state": self.ended[o.uid]})})
            if o.uid in self.ended
            else o
            for o in self.operations
        ]
        if settle.forget:
            self.vm = None
            self.volumes = {uid: volume for uid, volume in self.volumes.items() if uid in settle.kept}
            return
        status = observed_status(view, settle, GuestKnown(), HostKnown("tcg", "7"), NOW)
        update: dict[str, object] = {"status": status}
        if settle.power is not None:
            spec = self.vm.spec.model_copy(update={"power": settle.power})
            update |= {"spec": spec, "generation": self.vm.generation + 1}
        if settle.undelete:
            update["deletion_requested_at"] = None
        self.vm = self.vm.model_copy(update=update)
        ready = VolumeStatus(ready=True)
        self.volumes = {
            uid: volume.model_copy(update={"status": ready}) if uid in self.known.made else volume
            for uid, volume in self.volumes.items()
        }
        restart_at_s = decided.wait.until_s if settle.restarts and decided.wait else self.known.restart_at_s
        self.known = replace(
            self.known,
            made=frozenset(),
            started=self.known.started and settle.keep_started,
            asked=None if settle.endings else self.known.asked,
            restart_at_s=restart_at_s,
        )


def make_world(
    *,
    power: Power = Power.ON,
    was: VmState = VmState.PENDING,
    domain: VmState | None = None,
    policy: RunPolicy = RunPolicy.ON_FAILURE,
    autostart: bool = False,
    generation: int = 1,
    observed: int | None = None,
    ready: bool = False,
    delete_with_vm: bool = True,
    deleting: bool = False,
) -> ModelWorld:
    spec = VolumeSpec(size_bytes=2**30, vm_uid=VM)
    volumes = {
        ROOT: Volume(name="root", uid=ROOT, created_at=NOW, spec=spec, status=VolumeStatus(ready=ready)),
        DATA: Volume(
            name="data",
            uid=DATA,
            created_at=NOW,
            spec=spec.model_copy(update={"delete_with_vm": delete_with_vm}),
            status=VolumeStatus(ready=ready),
        ),
    }
    vm = Vm(
        name="web",
        uid=VM,
        created_at=NOW,
        generation=generation,
        deletion_requested_at=NOW if deleting else None,
        placement=Placement(host_uid=VM),
        spec=VmSpec(
            power=power,
            run_policy=policy,
            boot=BootOrder(autostart=autostart),
            disks=(DiskSpec(name="root", volume_uid=ROOT), DiskSpec(name="data", volume_uid=DATA)),
            nics=(NicSpec(name="net0", network_uid=NET, mac="52:54:00:00:00:01", address="192.168.1.2"),),
            cloud_init=CloudInitSpec(hostname="web", instance_id="i"),
        ),
    )
    seen = generation if observed is None else observed
    status = vm.status.model_copy(
        update={"state": was, "observed_generation": seen, "host_boot_id": "boot" if was is not VmState.PENDING else ""}
    )
    world = ModelWorld(vm.model_copy(update={"status": status}), volumes)
    if domain is not None:
        world.domain = world.observed(domain)
        world.disks, world.seed, world.reserved = {ROOT, DATA}, True, True
    return world


@pytest.fixture
def model() -> Callable[..., ModelWorld]:
    return make_world


@pytest.fixture
def fresh(model) -> ModelWorld:
    """A VM that was just asked for."""
    world = model(observed=0)
    world.request(CreateVm(), tracks=1)
    return world
