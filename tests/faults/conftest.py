"""A whole agent over the fake world, that can be killed at any call and started again."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral.agent.host import HostIdentity
from corral.agent.loop import Agent
from corral.clock import SystemClock
from corral.hypervisor.fake import FakeHypervisor, definition_hash
from corral.images.fake import FakeLibrary
from corral.model.image import Image, ImageFacts, ImageSource, ImageSpec, ImageState, ImageStatus
from corral.model.network import Network, NetworkSpec
from corral.model.operation import CreateVm, Intent, Operation, OperationSpec
from corral.model.snapshot import Snapshot
from corral.model.vm import (
    DAC_UID_FIRST,
    BootOrder,
    CloudInitSpec,
    DiskSpec,
    NicSpec,
    Placement,
    Power,
    RunPolicy,
    Vm,
    VmSpec,
)
from corral.model.volume import Volume, VolumeSpec
from corral.names import new_mac, new_uid
from corral.network.fake import FakeNetworks
from corral.network.fake_routers import FakeRouters
from corral.security.audit import AuditLog
from corral.services.context import Context
from corral.services.device import DeviceService
from corral.services.ledger import Ledger
from corral.settings import Settings
from corral.simulation import Simulation
from corral.storage.fake import FakeVolumes
from corral.store.memory import MemoryStore
from corral.store.objects import Objects, claim_key

HOST = "00000000-0000-4000-8000-00000000000a"
INSTALLATION = "00000000-0000-4000-8000-00000000000b"


async def _no_password(_password: str) -> str:
    raise AssertionError("nobody has a password here")


class GatedStore:
    """The store as a process sees it: its transactions are calls that can fail, and a dead process makes none."""

    def __init__(self, store: MemoryStore, simulation: Simulation) -> None:
        self._store = store
        self._simulation = simulation

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def transact(self, *args: object, **kwargs: object) -> object:
        async with self._simulation.call("store.transact"):
            return await self._store.transact(*args, **kwargs)


class AgentWorld:
    """Store, fakes and, while it lives, an agent. Services' part is played by the methods that write wishes."""

    def __init__(self, directory: Path) -> None:
        self.simulation = Simulation(trace=[])
        self.store = MemoryStore()
        self.objects = Objects(self.store)
        self.hypervisor = FakeHypervisor(self.simulation, agent_delay_s=0.01)
        self.volumes = FakeVolumes(self.simulation, directory)
        self.library = FakeLibrary(self.simulation, directory / "images")
        self.networks = FakeNetworks(self.simulation)
        self.routers = FakeRouters(self.simulation)
        self.clock = SystemClock()
        self.settings = Settings(state_dir=directory, socket=directory / "s", hypervisor_timeout_s=0.1)
        self.identity = HostIdentity(HOST, INSTALLATION, "host", "boot-1")
        self.network = Network(
            name="default",
            uid=new_uid(),
            created_at=self.clock.now(),
            spec=NetworkSpec(subnet="192.168.200.0/24", domain="test", bridge="br0"),
        )
        self.image = Image(
            name="micro",
            uid=new_uid(),
            created_at=self.clock.now(),
            spec=ImageSpec(catalogue="micro", source=ImageSource.BUILD),
            status=ImageStatus(state=ImageState.READY, facts=ImageFacts(digest="ab" * 32, os_id="")),
        )
        self.devices = DeviceService(self._context(directory))
        self.agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None
        self._addresses = iter(range(10, 250))

    def _context(self, directory: Path) -> Context:
        """What services work with: the same store, and drivers that no fault disturbs, since requests are not the subject."""
        calm = Simulation()
        return Context(
            objects=self.objects,
            clock=self.clock,
            settings=self.settings,
            hypervisor=FakeHypervisor(calm),
            volumes=FakeVolumes(calm, directory),
            library=self.library,
            networks=FakeNetworks(calm),
            audit=AuditLog(self.store, INSTALLATION, self.clock),
            ledger=Ledger(self.objects),
            hash_password=_no_password,
            host_uid=HOST,
            installation_id=INSTALLATION,
            own_dac_uids=True,
            cpus=64,
            memory_mib=2**20,
        )

    # ---- the process ----

    async def prepare(self) -> None:
        transaction = self.objects.transaction()
        transaction.create(self.network)
        transaction.create(self.image)
        await transaction.commit()

    async def start(self, *, wait: bool = True) -> None:
        """A new daemon over the same world."""
        self.simulation.revive()
        self.agent = Agent(
            Objects(GatedStore(self.store, self.simulation)),
            self.hypervisor,
            self.volumes,
            self.library,
            self.networks,
            self.clock,
            self.settings,
            self.identity,
            routers=self.routers,
            definition_hash=definition_hash,
            seed_files=lambda vm: {"meta-data": vm.uid.encode()},
            dac_numbers=self.devices._context.ledger.dac_uids,
        )
        self._task = asyncio.create_task(self.agent.run())
        if wait:
            async with asyncio.timeout(10):
                await self.agent.ready.wait()

    async def kill(self) -> None:
        """`kill -9`: from this instant nothing that it does has an effect."""
        self.simulation.crashed = True
        if self._task is not None:
            agent, task = self.agent, self._task
            assert agent is not None
            for running in (*agent.dispatcher._tasks.values(), *agent.guests._tasks):
                running.cancel()
            task.cancel()
            await asyncio.wait([task])
        self.agent = self._task = None

    async def stop(self) -> None:
        if self.agent is not None and self._task is not None:
            await self.agent.stop()
            await self._task
        self.agent = self._task = None

    def reboot_host(self) -> None:
        """After `kill`: the host comes up again."""
        self.hypervisor.reboot_host()
        self.identity = replace(self.identity, boot_id=self.identity.boot_id + "'")

    # ---- what services do ----

    async def create(
        self,
        name: str = "web",
        *,
        power: Power = Power.ON,
        run_policy: RunPolicy = RunPolicy.ON_FAILURE,
        boot: BootOrder | None = None,
    ) -> tuple[Vm, Operation]:
        uid, mac, address = new_uid(), new_mac(), f"192.168.200.{next(self._addresses)}"
        volume = Volume(
            name=f"{name}-root",
            uid=new_uid(),
            created_at=self.clock.now(),
            spec=VolumeSpec(size_bytes=2**30, image_uid=self.image.uid, image_digest="ab" * 32, vm_uid=uid),
        )
        vm = Vm(
            name=name,
            uid=uid,
            created_at=self.clock.now(),
            annotations={"corral/dac-uid": str(DAC_UID_FIRST + int(address.rsplit(".", 1)[1]))},
            spec=VmSpec(
                power=power,
                run_policy=run_policy,
                boot=boot or BootOrder(),
                image="micro",
                image_uid=self.image.uid,
                disks=(DiskSpec(name="root", volume_uid=volume.uid),),
                nics=(NicSpec(name="net0", network_uid=self.network.uid, mac=mac, address=address),),
                cloud_init=CloudInitSpec(hostname=name, instance_id=uid),
            ),
            placement=Placement(host_uid=HOST),
        )
        operation = self.operation(vm, CreateVm(), tracks=1)
        transaction = self.objects.transaction()
        for value in (vm, volume, operation):
            transaction.create(value)
        transaction.claim(claim_key("mac", "host", mac), uid)
        transaction.claim(claim_key("address", self.network.uid, address), uid)
        transaction.claim(claim_key("dac-uid", "host", address.rsplit(".", 1)[1]), uid)
        await transaction.commit()
        return vm, operation

    async def wish(
        self,
        vm: Vm,
        intent: Intent,
        power: Power | None = None,
        *,
        delete: bool = False,
        spec: Mapping[str, object] = {},
    ) -> Operation:
        """A declarative request; `spec`: what else it changes."""
        current = await self.objects.get(Vm, vm.uid)
        assert current is not None
        changed = current.model_copy(
            update={
                "generation": current.generation + 1,
                "spec": current.spec.model_copy(update={"power": power or current.spec.power, **spec}),
                "deletion_requested_at": self.clock.now() if delete else current.deletion_requested_at,
            }
        )
        operation = self.operation(current, intent, tracks=changed.generation, previous=current.spec.power)
        transaction = self.objects.transaction()
        transaction.update(changed)
        transaction.create(operation)
        try:
            await transaction.commit()
        except Exception:  # the agent was first
            await asyncio.sleep(0.005)
            return await self.wish(vm, intent, power, delete=delete, spec=spec)
        return operation

    async def ask(self, vm: Vm, intent: Intent) -> Operation:
        """An imperative request."""
        operation = self.operation(vm, intent, tracks=0)
        transaction = self.objects.transaction()
        transaction.create(operation)
        await transaction.commit()
        return operation

    async def cancel(self, operation: Operation) -> None:
        current = await self.objects.get(Operation, operation.uid)
        assert current is not None
        spec = current.spec.model_copy(update={"cancel_requested_at": self.clock.now()})
        transaction = self.objects.transaction()
        transaction.update(current.model_copy(update={"spec": spec}))
        await transaction.commit()

    def operation(self, vm: Vm, intent: Intent, *, tracks: int, previous: str = "") -> Operation:
        uid = new_uid()
        return Operation(
            name=uid,
            uid=uid,
            created_at=datetime.now(UTC),
            spec=OperationSpec(
                intent=intent,
                target_kind="vm",
                target_uid=vm.uid,
                target_name=vm.name,
                tracks_generation=tracks,
                previous_power=str(previous),
                requested_by="local:root",
                request_id="r",
            ),
        )

    # ---- looking ----

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Until `condition()` (which may be a coroutine function) holds."""
        async with asyncio.timeout(timeout_s):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.002)

    async def ended(self, operation: Operation, timeout_s: float = 10.0) -> Operation:
        async def final() -> bool:
            found = await self.objects.get(Operation, operation.uid)
            return found is not None and found.status.state.final

        await self.until(final, timeout_s)
        found = await self.objects.get(Operation, operation.uid)
        assert found is not None
        return found

    async def quiet(self, timeout_s: float = 10.0) -> None:
        """No unfinished operation, nobody has a turn."""

        async def still() -> bool:
            operations = await self.objects.list(Operation)
            idle = self.agent is None or self.agent.dispatcher.idle
            return idle and all(operation.status.state.final for operation in operations)

        await self.until(still, timeout_s)

    async def vm(self, uid: str) -> Vm | None:
        return await self.objects.get(Vm, uid)

    async def events(self) -> list[str]:
        import json

        return [json.loads(entry.value)["reason"] for entry in await self.store.journal("events", limit=10_000)]

    async def check_whole(self) -> None:
        """Nothing is there that no object refers to, and everything is there that one does."""
        vms = {vm.uid: vm for vm in await self.objects.list(Vm)}
        volumes = {volume.uid: volume for volume in await self.objects.list(Volume)}
        assert set(self.hypervisor.domains) == set(vms)
        assert set(self.volumes.pool.volumes) == set(volumes)
        assert self.volumes.pool.seeds == set(vms)
        owners_of = {disk.volume_uid: vm.uid for vm in vms.values() for disk in vm.spec.disks}
        assert set(owners_of) <= set(volumes)
        for volume in volumes.values():
            assert volume.spec.vm_uid == owners_of.get(volume.uid), volume
            assert volume.status.ready, volume
            there = Volume.model_validate_json(self.volumes.pool.volumes[volume.uid])
            assert there.spec.size_bytes == volume.spec.size_bytes, volume
        for vm in vms.values():
            domain = self.hypervisor.domains[vm.uid]
            assert [disk.name for disk in domain.disks] == [disk.name for disk in vm.spec.disks]
            assert [nic.mac for nic in domain.nics] == [nic.mac for nic in vm.spec.nics]
            assert (domain.vcpus, domain.memory_mib) == (vm.spec.vcpus, vm.spec.memory_mib)
        reserved = {r.mac for network in self.networks.networks.values() for r in network.reservations.values()}
        assert reserved == {nic.mac for vm in vms.values() for nic in vm.spec.nics}
        claims = {record.key: record.value.decode() for record in (await self.store.range("/claims/")).records}
        owners = {
            owner
            for key, owner in claims.items()
            if not key.startswith(
                tuple(f"/claims/name/{kind}" for kind in ("network", "image", "host", "pool", "template"))
            )
        }
        snapshots = {snapshot.uid for snapshot in await self.objects.list(Snapshot)}
        assert owners <= set(vms) | set(volumes) | snapshots, claims
        for operation in await self.objects.list(Operation):
            assert operation.status.state.final, operation
        for vm in vms.values():
            running = self.hypervisor.domains[vm.uid].state == "running"
            assert running == (vm.spec.power is Power.ON), vm
            assert vm.status.state == self.hypervisor.domains[vm.uid].state
            assert vm.status.observed_generation == vm.generation


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Runs an asynchronous test with a prepared world, and kills its agent afterwards."""

    def run(test: Callable[[AgentWorld], object]) -> None:
        async def main() -> None:
            made = AgentWorld(tmp_path)
            await made.prepare()
            try:
                await test(made)
            finally:
                await made.kill()

        asyncio.run(main())

    return run


@pytest.fixture
def new_world(tmp_path: Path) -> Callable[[], AgentWorld]:
    """Each in a directory of its own."""
    worlds = itertools.count()

    def make() -> AgentWorld:
        directory = tmp_path / str(next(worlds))
        directory.mkdir()
        return AgentWorld(directory)

    return make
