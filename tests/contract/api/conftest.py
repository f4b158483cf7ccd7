"""A daemon without an agent in a thread: the real API on a real socket, over services, a memory store and fakes."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest

from corral import log
from corral.api.app import Api, create_app
from corral.api.server import serve
from corral.client import Client
from corral.clock import SystemClock
from corral.hypervisor.base import DomainDefinition, DomainMetadata
from corral.hypervisor.fake import FakeHypervisor
from corral.images.fake import FakeLibrary
from corral.model.host import Host, HostSpec, HostStatus
from corral.model.identity import Project
from corral.model.image import Image, ImageFacts, ImageSource, ImageSpec, ImageState, ImageStatus
from corral.model.network import Network, NetworkSpec
from corral.model.operation import Operation, OperationState
from corral.model.vm import Vm, VmState
from corral.model.volume import Volume
from corral.names import new_uid
from corral.network.fake import FakeNetworks
from corral.security.audit import AuditLog
from corral.services.bundle import Services, Surroundings, build_services
from corral.services.context import Context
from corral.services.ledger import Ledger
from corral.settings import Settings
from corral.simulation import Simulation
from corral.storage.fake import FakeVolumes
from corral.store.memory import MemoryStore
from corral.store.objects import Objects

T = TypeVar("T")
WAIT_S = 20.0


async def _no_hash(password: str) -> str:
    return "$6$salt$" + "x" * len(password)


@dataclass
class World:
    """What a test may touch; `run` executes in the daemon's own loop."""

    settings: Settings
    loop: asyncio.AbstractEventLoop
    api: Api
    context: Context
    hypervisor: FakeHypervisor
    stop: asyncio.Event

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)

    def client(self, **arguments: Any) -> Client:
        return Client(self.settings.socket, **arguments)

    def finish(self, uid: str, state: OperationState = OperationState.SUCCEEDED) -> None:
        """End an operation, as the agent does."""

        async def write() -> None:
            objects = self.context.objects
            operation = await objects.get(Operation, uid)
            assert operation is not None
            now = self.context.clock.now()
            status = operation.status.model_copy(update={"state": state, "ended_at": now})
            transaction = objects.transaction()
            transaction.update(operation.changed(status=status))
            await transaction.commit()

        self.run(write())

    def boot(self, name: str) -> None:
        """Make a VM run in the fake hypervisor and say so in its status, as the agent does."""

        async def write() -> None:
            objects = self.context.objects
            vm = await objects.require(Vm, "default", name)
            await self.hypervisor.define(_definition(vm))
            await self.hypervisor.start(vm.uid)
            transaction = objects.transaction()
            status = vm.status.model_copy(update={"state": VmState.RUNNING, "agent_connected": True})
            transaction.update(vm.changed(status=status))
            await transaction.commit()
            await asyncio.sleep(0.05)  # the fake guest's agent connects a moment after its start

        self.run(write())


def _definition(vm: Vm) -> DomainDefinition:
    metadata = DomainMetadata("installation", vm.uid, vm.project, vm.name, 1, 1)
    return DomainDefinition(
        uid=vm.uid,
        name=vm.name,
        description="",
        vcpus=1,
        memory_mib=64,
        cpu_shares=1024,
        accelerator="tcg",
        firmware="bios",
        disks=(),
        nics=(),
        seed_path=None,
        kernel=None,
        graphics="vnc",
        run_dir="/run/x",
        console_log="/dev/null",
        dac_uid=None,
        metadata=metadata,
    )


async def _furnish(objects: Objects, clock: SystemClock, host_uid: str) -> None:
    """What bootstrap and the agent make: project, network, host, and an image that is ready."""
    now = clock.now()
    facts = ImageFacts(digest="0" * 64, os_id="", disk_virtual_bytes=2**30, memory_min_mib=32, default_user="root")
    ready = ImageStatus(state=ImageState.READY, facts=facts)
    source = ImageSpec(catalogue="micro", source=ImageSource.BUILD)
    subnet = NetworkSpec(subnet="10.77.0.0/16", domain="corral.internal", bridge="corral0")
    bounds = HostSpec(cpu_overcommit=8, memory_overcommit=1, reserved_memory_mib=0)
    measured = HostStatus(cpus=1024, memory_mib=2**22, disk_free_bytes=2**44, disk_total_bytes=2**44)
    transaction = objects.transaction()
    transaction.create(Project(name="default", uid=new_uid(), created_at=now))
    transaction.create(Network(name="default", uid=new_uid(), created_at=now, spec=subnet))
    transaction.create(Image(name="micro", uid=new_uid(), created_at=now, spec=source, status=ready))
    transaction.create(Host(name="here", uid=host_uid, created_at=now, spec=bounds, status=measured))
    await transaction.commit()


async def _draw(vm: Vm, _volumes: Sequence[Volume]) -> str:
    return f"<domain><name>{vm.domain_name}</name></domain>"


def _services(context: Context, backup: Callable[[Path], None]) -> Services:
    around = Surroundings(agent_ready=lambda: True, backup=backup, draw=_draw)
    return build_services(context, around)


async def _build(settings: Settings) -> tuple[Api, Context, FakeHypervisor]:
    clock, simulation, host_uid = SystemClock(), Simulation(), new_uid()
    store = MemoryStore(clock)
    objects = Objects(store)
    await _furnish(objects, clock, host_uid)
    hypervisor = FakeHypervisor(simulation, installation_id="installation", agent_delay_s=0.0)
    context = Context(
        objects=objects,
        clock=clock,
        settings=settings,
        hypervisor=hypervisor,
        volumes=FakeVolumes(simulation, settings.state_dir),
        library=FakeLibrary(simulation, settings.state_dir / "images"),
        networks=FakeNetworks(simulation),
        audit=AuditLog(store, "installation", clock, None),
        ledger=Ledger(objects),
        hash_password=_no_hash,
        host_uid=host_uid,
        installation_id="installation",
        own_dac_uids=False,
        cpus=1024,
        memory_mib=2**22,
    )
    await context.ledger.prime()
    services = _services(context, lambda path: path.write_bytes(b"database" * 100_000) and None)
    return create_app(services, services.tokens, settings), context, hypervisor


@pytest.fixture
def settings() -> Iterator[Settings]:
    """A short directory: a socket's path has 107 bytes."""
    with TemporaryDirectory(prefix="capi") as name:
        directory = Path(name)
        yield Settings(
            state_dir=directory, socket=directory / "s", hypervisor="fake", admin_group="", request_rate_per_s=1e6
        )


@pytest.fixture
def start() -> Iterator[Callable[[Settings], World]]:
    """Starts a daemon with the settings that the test wants."""
    running: list[tuple[World, threading.Thread]] = []
    log.configure("warning")

    def begin(settings: Settings) -> World:
        ready: list[World | BaseException] = []
        happened = threading.Event()

        async def live() -> None:
            api, context, hypervisor = await _build(settings)
            world = World(settings, asyncio.get_running_loop(), api, context, hypervisor, asyncio.Event())
            ledger = asyncio.create_task(context.ledger.run(context.objects.store.revision))

            def announce() -> None:
                ready.append(world)
                happened.set()

            await serve(api, settings, stop=world.stop, ready=announce)
            ledger.cancel()

        def main() -> None:
            try:
                asyncio.run(live())
            except BaseException as error:
                ready.append(error)
                happened.set()

        thread = threading.Thread(target=main)
        thread.start()
        assert happened.wait(WAIT_S)
        if isinstance(ready[0], BaseException):
            thread.join(WAIT_S)
            raise ready[0]
        running.append((ready[0], thread))
        return ready[0]

    yield begin
    for world, thread in running:
        if thread.is_alive():
            world.loop.call_soon_threadsafe(world.stop.set)
        thread.join(WAIT_S)
        assert not thread.is_alive(), "the daemon did not stop"


@pytest.fixture
def world(start: Callable[[Settings], World], settings: Settings) -> World:
    return start(settings)


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with world.client() as client:
        yield client
