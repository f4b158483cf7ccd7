"""A world for services: the store in memory, the fakes below, and no agent: a test plays its part by hand."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from corral.clock import ManualClock
from corral.hypervisor.fake import FakeHypervisor
from corral.images.fake import FakeLibrary
from corral.model.base import Object
from corral.model.identity import Identity, Project, Role
from corral.model.image import Image, ImageSource, ImageSpec, ImageState, ImageStatus
from corral.model.network import Network, NetworkSpec
from corral.model.requests import CreateVmRequest
from corral.model.vm import Vm, VmState
from corral.names import new_uid
from corral.network.fake import FakeNetworks
from corral.security.audit import AuditLog
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.domain import DomainService
from corral.services.event import EventService
from corral.services.image import ImageService
from corral.services.ledger import Ledger
from corral.services.operation import OperationService
from corral.services.session import SessionService
from corral.services.token import TokenService
from corral.services.usage import UsageMeter
from corral.services.vm import VmService
from corral.settings import Settings
from corral.simulation import Simulation
from corral.storage.fake import FakeVolumes
from corral.store.memory import MemoryStore
from corral.store.objects import AUDIT, Objects

T = TypeVar("T", bound=Object)
INSTALLATION = "11111111-1111-4111-8111-111111111111"
HOST = "22222222-2222-4222-8222-222222222222"
_requests = itertools.count()


def caller(role: Role = Role.OPERATOR, project: str = "default", key: str = "", name: str = "token:tester") -> Caller:
    return Caller(Identity(name=name, roles={project: role}), f"request-{next(_requests)}", key)


def admin(key: str = "") -> Caller:
    return Caller(Identity(name="local:root", roles={"*": Role.ADMIN}), f"request-{next(_requests)}", key)


async def pretended_hash(password: str) -> str:
    return f"$6$salt${len(password)}"


@dataclass
class World:
    """Everything that services stand on, and what a test needs to look at it."""

    context: Context
    vms: VmService
    images: ImageService
    operations: OperationService
    sessions: SessionService
    events: EventService
    tokens: TokenService
    domains: DomainService
    hypervisor: FakeHypervisor
    library: FakeLibrary
    volumes: FakeVolumes
    clock: ManualClock
    following: list[asyncio.Task[None]] = field(default_factory=list)

    caller = staticmethod(caller)
    admin = staticmethod(admin)

    @property
    def objects(self) -> Objects:
        return self.context.objects

    async def put(self, value: T) -> T:
        """Write an object as the agent does; returns it with its revision."""
        transaction = self.objects.transaction()
        if value.revision:
            transaction.update(value)
        else:
            transaction.create(value)
        committed = await transaction.commit()
        return value.model_copy(update={"revision": committed.revision})

    async def vm(self, name: str, project: str = "default") -> Vm:
        return await self.objects.require(Vm, project, name)

    async def see(self, name: str, state: VmState, **status: object) -> Vm:
        """Play the agent: the VM was seen in `state`."""
        vm = await self.vm(name)
        return await self.put(vm.model_copy(update={"status": vm.status.model_copy(update={"state": state, **status})}))

    async def running(self, name: str, **request: object) -> Vm:
        """A VM that was made and is seen running."""
        await self.vms.create(
            caller(), "default", CreateVmRequest.model_validate({"name": name, "image": "micro", **request})
        )
        return await self.see(name, VmState.RUNNING)

    async def image(self, name: str, state: ImageState = ImageState.READY, **facts: object) -> Image:
        spec = ImageSpec(catalogue="micro", source=ImageSource.BUILD)

        async def no_progress(_phase: str, _done: float | None) -> None: ...

        made = (await self.library.make(name, spec, no_progress)).model_copy(update=facts)
        status = ImageStatus(state=state, facts=made if state is ImageState.READY else None)
        return await self.put(Image(name=name, uid=new_uid(), created_at=self.clock.now(), spec=spec, status=status))

    async def follow(self) -> None:
        """Let the ledger follow the store, as in the daemon."""
        since = await self.context.ledger.prime()
        self.following.append(asyncio.create_task(self.context.ledger.run(since)))

    async def audit_outcomes(self) -> list[tuple[str, str]]:
        records = await self.context.audit.list()
        return [(record.action, record.outcome) for record in records]

    async def audit_text(self) -> str:
        return b"\n".join(entry.value for entry in await self.objects.store.journal(AUDIT)).decode()


def build_world(state_dir: Path, **settings: object) -> World:
    store, clock = MemoryStore(), ManualClock()
    objects = Objects(store)
    simulation = Simulation()
    hypervisor = FakeHypervisor(simulation, INSTALLATION)
    library, volumes = FakeLibrary(simulation, state_dir / "images"), FakeVolumes(simulation, state_dir)
    values: dict[str, Any] = {"hypervisor": "fake", "state_dir": state_dir, "socket": state_dir / "s", **settings}
    context = Context(
        objects=objects,
        clock=clock,
        settings=Settings(**values),
        hypervisor=hypervisor,
        volumes=volumes,
        library=library,
        networks=FakeNetworks(simulation),
        audit=AuditLog(store, INSTALLATION, clock),
        ledger=Ledger(objects),
        hash_password=pretended_hash,
        host_uid=HOST,
        installation_id=INSTALLATION,
        own_dac_uids=True,
        cpus=4,
        memory_mib=9 * 1024,
    )
    return World(
        context,
        VmService(context),
        ImageService(context),
        OperationService(context),
        SessionService(context, UsageMeter(context)),
        EventService(context),
        TokenService(context),
        DomainService(context),
        hypervisor,
        library,
        volumes,
        clock,
    )


async def furnish(world: World, subnet: str = "10.0.0.0/24") -> None:
    """What bootstrap makes, and the image `micro`."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    await world.put(Project(name="default", uid=new_uid(), created_at=now))
    spec = NetworkSpec(subnet=subnet, domain="test.internal", bridge="crltest")
    await world.put(Network(name="default", uid=new_uid(), created_at=now, spec=spec))
    await world.image("micro")


Play = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Run a test's coroutine in a furnished world of its own: 8 GiB to promise, 32 vCPUs."""

    def run(scene: Callable[[World], Coroutine[Any, Any, None]], **settings: object) -> None:
        async def whole() -> None:
            world = build_world(tmp_path, **settings)
            await furnish(world)
            try:
                await scene(world)
            finally:
                for task in world.following:
                    task.cancel()
                await asyncio.gather(*world.following, return_exceptions=True)
                await world.objects.store.close()

        asyncio.run(whole())

    return run
