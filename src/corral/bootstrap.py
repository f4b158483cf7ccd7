"""The composition root: chooses the implementations, starts the daemon and ends it. Nothing else knows them all."""

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral import files, log, proc, sd_notify
from corral.clock import Clock, SystemClock
from corral.errors import CorralError
from corral.host.stopping import host_is_stopping
from corral.hypervisor.base import DomainDefinition, HypervisorDriver
from corral.images.base import ImageLibrary
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.names import MIB
from corral.network.base import NetworkDriver
from corral.network.firewall.base import Firewall
from corral.network.router import RouterDriver
from corral.settings import Settings, notify_address
from corral.storage.base import VolumeStore

if TYPE_CHECKING:
    from corral.agent.host import HostIdentity
    from corral.agent.loop import Agent
    from corral.services.bundle import Services
    from corral.services.context import Context
    from corral.store.objects import Objects

STATE_DIRS: Final = ("volumes", "seeds", "images", "consoles")
FAKE_WORLD: Final = "fake-world.jsonl"
AUDIT_ANCHORS: Final = "audit-anchors"
RESERVATIONS: Final = "reservations"
# QEMU runs as another user and must reach the files below by their names, but need not see what else there is.
TRAVERSABLE: Final = 0o711
CLOSE_TIMEOUT_S: Final = 5.0
# Nobody routes it; large enough for tens of thousands of pretended VMs.
FAKE_SUBNET: Final = "10.128.0.0/16"
_log: Final = log.logger("daemon")


@dataclass(frozen=True)
class Backend:
    """The implementations that a choice of hypervisor brings."""

    hypervisor: HypervisorDriver
    volumes: VolumeStore
    library: ImageLibrary
    networks: NetworkDriver
    routers: RouterDriver
    firewall: Firewall
    definition_hash: Callable[[DomainDefinition], str]
    render: Callable[[DomainDefinition], str]
    """A definition as the hypervisor's document."""
    seed_files: Callable[[Vm], Mapping[str, bytes]]
    used_subnets: Callable[[], Awaitable[Mapping[str, str]]]
    choose_subnet: Callable[[Iterable[str], str], str]
    own_dac_uids: bool
    """Each QEMU runs under a uid of its own."""


def run(settings: Settings) -> int:
    """Be the daemon until SIGTERM or SIGINT; returns the exit status. A start that fails says why on standard error."""
    gc.disable()  # until the daemon is ready: start-up makes little garbage and many modules
    log.configure(settings.log_level, settings.log_json)
    proc.complete_search_path()
    try:
        asyncio.run(_run(settings))
    except CorralError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    return 0


def restore(settings: Settings, source: Path) -> None:
    """Put a backup in the place of the stopped daemon's database."""
    from corral.store import backup  # noqa: PLC0415 -- the daemon itself never restores

    backup.restore(source, settings.database)


async def _run(settings: Settings) -> None:
    files.raise_open_limit()
    prepare_directories(settings)
    with files.exclusive_lock(settings.state_dir / "lock"):
        files.remove_leftovers(settings.state_dir)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            await _serve(settings, stop)
        except BaseExceptionGroup as group:
            raise _first_coded(group) from group


async def _serve(settings: Settings, stop: asyncio.Event) -> None:
    # Imported once the lock is held: a second daemon is refused without loading any of it.
    from corral.agent.heap import keep_collections_short  # noqa: PLC0415
    from corral.agent.host import HostIdentity  # noqa: PLC0415
    from corral.agent.loop import Agent  # noqa: PLC0415
    from corral.services.beginning import Subnets, ensure_network, ensure_project, network_later  # noqa: PLC0415
    from corral.store.objects import Objects  # noqa: PLC0415
    from corral.store.spare import Spare  # noqa: PLC0415
    from corral.store.sqlite import SqliteStore  # noqa: PLC0415

    clock = SystemClock()
    identity = HostIdentity.load(settings.state_dir)
    async with contextlib.AsyncExitStack() as stack:
        store = await SqliteStore.open(settings.database, clock=clock, spare=Spare(settings.spare))
        stack.push_async_callback(_closed, store.close)
        backend = await open_backend(settings, identity.installation_id)
        stack.push_async_callback(_closed, backend.hypervisor.close)
        objects = Objects(store)
        context = build_context(settings, clock, objects, backend, identity)
        agent = Agent(
            objects,
            backend.hypervisor,
            backend.volumes,
            backend.library,
            backend.networks,
            clock,
            settings,
            identity,
            routers=backend.routers,
            firewall=backend.firewall,
            definition_hash=backend.definition_hash,
            seed_files=backend.seed_files,
            dac_numbers=context.ledger.dac_uids if backend.own_dac_uids else None,
        )
        services = build_services(context, agent, backend.render)
        await ensure_project(context)
        subnets = Subnets(backend.used_subnets, backend.choose_subnet)
        network_is_there = await ensure_network(context, subnets)
        since = await context.ledger.prime()
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(_end_with(store.failure())),
                group.create_task(context.ledger.run(since)),
                group.create_task(context.audit.keep_anchored()),
                group.create_task(agent.run()),
                group.create_task(backend.firewall.follow()),
                group.create_task(context.denials.run(backend.firewall)),
                group.create_task(keep_collections_short()),
            ]
            if not network_is_there:
                background.append(group.create_task(network_later(context, subnets)))
            await _listen(settings, services, stop)
            sd_notify.notify("STOPPING=1", notify_address())
            _log.info("stopping")
            if await host_is_stopping():
                await agent.shutdown_guests(_log.info)
            await agent.stop()
            for task in background:
                task.cancel()
        _log.info("stopped")


async def _end_with(failure: Awaitable[CorralError]) -> None:
    """A store that has failed for good ends the daemon, whose supervisor starts another; guests go on."""
    raise await failure


async def _listen(settings: Settings, services: "Services", stop: asyncio.Event) -> None:
    from corral.api.app import create_app  # noqa: PLC0415
    from corral.api.server import serve  # noqa: PLC0415

    def ready() -> None:
        # What start-up made lives as long as the process: the collector need never look at it.
        gc.freeze()
        gc.enable()
        sd_notify.notify("READY=1", notify_address())
        _log.info("ready", socket=str(settings.socket), listen=settings.listen or "off", pid=os.getpid())

    await serve(create_app(services, services.tokens, settings), settings, stop=stop, ready=ready)


def build_context(
    settings: Settings, clock: Clock, objects: "Objects", backend: Backend, identity: "HostIdentity"
) -> "Context":
    """What services work with."""
    from corral.security.audit import AuditLog  # noqa: PLC0415
    from corral.services.context import Context  # noqa: PLC0415
    from corral.services.ledger import DAC_UIDS, Ledger  # noqa: PLC0415
    from corral.services.passwords import hash_password  # noqa: PLC0415

    # Several installations on one host start at different places of the uids, so that their guests do not meet.
    digest = hashlib.sha256(identity.installation_id.encode()).digest()
    return Context(
        objects=objects,
        clock=clock,
        settings=settings,
        hypervisor=backend.hypervisor,
        volumes=backend.volumes,
        library=backend.library,
        networks=backend.networks,
        firewall=backend.firewall,
        audit=AuditLog(objects.store, identity.installation_id, clock, settings.state_dir / AUDIT_ANCHORS),
        ledger=Ledger(objects, int.from_bytes(digest[:4], "big") % DAC_UIDS),
        hash_password=hash_password,
        host_uid=identity.host_uid,
        installation_id=identity.installation_id,
        own_dac_uids=backend.own_dac_uids,
        cpus=os.cpu_count() or 1,
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
    )


def build_services(context: "Context", agent: "Agent", render: Callable[[DomainDefinition], str]) -> "Services":
    """Every noun's service over one context and the agent beside it."""
    from corral.agent.preview import preview_definition  # noqa: PLC0415
    from corral.agent.sidecars import SidecarKeeper  # noqa: PLC0415
    from corral.services import bundle  # noqa: PLC0415
    from corral.store.backup import backup  # noqa: PLC0415

    async def draw(vm: Vm, volumes: Sequence[Volume]) -> str:
        return render(preview_definition(vm, volumes, agent.cache, agent.executor.places))

    sidecars = SidecarKeeper(agent.cache, context.sidecars)
    agent.wire.add(sidecars)
    for follow in (agent.firewall_keeper.follow, sidecars.follow):
        context.followers.add(follow)
    around = bundle.Surroundings(
        agent_ready=agent.ready.is_set,
        backup=lambda target: backup(context.settings.database, target),
        draw=draw,
    )
    return bundle.build_services(context, around)


# ---- implementations -----------------------------------------------------------------------------------------------


async def open_backend(settings: Settings, installation_id: str) -> Backend:
    """The parts that `settings.hypervisor` names."""
    if settings.hypervisor == "fake":
        return _fake_backend(settings, installation_id)
    return await _libvirt_backend(settings, installation_id)


async def _libvirt_backend(settings: Settings, installation_id: str) -> Backend:
    from corral.hypervisor.libvirt import LibvirtDriver, LibvirtNetworks, definition_hash  # noqa: PLC0415
    from corral.hypervisor.libvirt.confinement import find_host  # noqa: PLC0415
    from corral.hypervisor.libvirt.document import build_document  # noqa: PLC0415
    from corral.images.library import DirLibrary  # noqa: PLC0415
    from corral.network.firewall.absent import NoFirewall  # noqa: PLC0415
    from corral.network.firewall.keeper import KeptFirewall  # noqa: PLC0415
    from corral.network.firewall.probe import why_absent  # noqa: PLC0415
    from corral.network.host_routes import used_cidrs  # noqa: PLC0415
    from corral.network.router_kernel import KernelRouters  # noqa: PLC0415
    from corral.network.subnets import choose_subnet  # noqa: PLC0415
    from corral.storage.dir import DirVolumes  # noqa: PLC0415

    host = find_host(settings.libvirt_uri)
    system = settings.libvirt_uri.endswith("/system")
    missing = await asyncio.to_thread(why_absent) if system else "libvirt's session mode has no bridges"
    firewall = NoFirewall(missing) if missing else KeptFirewall(installation_id, settings.run_dir)
    driver = await LibvirtDriver.open(settings.libvirt_uri, timeout_s=settings.hypervisor_timeout_s)
    return Backend(
        hypervisor=driver,
        volumes=DirVolumes(settings.state_dir),
        library=DirLibrary(settings.state_dir / "images"),
        networks=LibvirtNetworks(
            driver, installation_id, settings.state_dir / RESERVATIONS, own_rules=isinstance(firewall, KeptFirewall)
        ),
        firewall=firewall,
        routers=KernelRouters(settings.run_dir, settings.state_dir / RESERVATIONS),
        definition_hash=definition_hash,
        render=lambda definition: build_document(definition, host),
        seed_files=_seed_files,
        used_subnets=used_cidrs,
        choose_subnet=choose_subnet,
        own_dac_uids=system and os.geteuid() == 0,
    )


def _fake_backend(settings: Settings, installation_id: str) -> Backend:
    from corral.hypervisor.fake import FakeHypervisor, definition_hash  # noqa: PLC0415
    from corral.hypervisor.fake_domain import render  # noqa: PLC0415
    from corral.images.fake import FakeLibrary  # noqa: PLC0415
    from corral.network.fake import FakeNetworks  # noqa: PLC0415
    from corral.network.fake_routers import FakeRouters  # noqa: PLC0415
    from corral.network.firewall.absent import NoFirewall  # noqa: PLC0415
    from corral.simulation import Simulation  # noqa: PLC0415
    from corral.storage.fake import FakeVolumes  # noqa: PLC0415

    async def nothing_used() -> Mapping[str, str]:
        return {}

    simulation = Simulation(settings.state_dir / FAKE_WORLD)
    return Backend(
        hypervisor=FakeHypervisor(simulation, installation_id=installation_id),
        volumes=FakeVolumes(simulation, settings.state_dir),
        library=FakeLibrary(simulation, settings.state_dir / "images"),
        networks=FakeNetworks(simulation),
        routers=FakeRouters(simulation),
        firewall=NoFirewall(),
        definition_hash=definition_hash,
        render=render,
        seed_files=_seed_files,
        used_subnets=nothing_used,
        choose_subnet=lambda _used, wanted: wanted or FAKE_SUBNET,
        own_dac_uids=False,
    )


def _seed_files(vm: Vm) -> Mapping[str, bytes]:
    from corral.images.cloud_init import build_seed_files  # noqa: PLC0415

    return {} if vm.spec.cloud_init is None else build_seed_files(vm.spec.cloud_init, vm.spec.nics)


# ---- start and end -------------------------------------------------------------------------------------------------


def prepare_directories(settings: Settings) -> None:
    """Make what is not there. Raises `storage-error` for a place that cannot be written."""
    try:
        settings.state_dir.mkdir(mode=TRAVERSABLE, parents=True, exist_ok=True)
        files.check_not_others(settings.state_dir, "keep the database and disks there")
        for name in STATE_DIRS:
            directory = settings.state_dir / name
            directory.mkdir(mode=TRAVERSABLE, exist_ok=True)
            directory.chmod(TRAVERSABLE)
        settings.run_dir.mkdir(mode=TRAVERSABLE, parents=True, exist_ok=True)
    except OSError as error:
        raise files.storage_error(f"prepare {settings.state_dir}", error) from error


async def _closed(close: Callable[[], Awaitable[None]]) -> None:
    """Close a part, whatever it says: the daemon ends all the same, in bounded time."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await close()
    except (CorralError, TimeoutError) as error:
        _log.warning("a part did not close", reason=str(error))


def _first_coded(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that a person can act upon, if there is one among those that ended the daemon."""
    coded = group.subgroup(CorralError)
    error: BaseException = coded or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, CorralError) else group
