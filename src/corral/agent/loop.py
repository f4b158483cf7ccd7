"""The agent: owns one host's VMs. Woken by the store's watch, by the hypervisor's events and by a slow relist."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from corral.agent.boot import BootSequence, GuestShutdown, boot_queue
from corral.agent.cache import Cache
from corral.agent.definition import DefinitionHash, Places
from corral.agent.dispatch import Dispatcher
from corral.agent.executor import Drivers, Executor, SeedFiles
from corral.agent.failures import WAITED_FOR, backoff_s
from corral.agent.firewall import NO_FIREWALL, FirewallKeeper
from corral.agent.guest import GuestWatch
from corral.agent.hidden_points import forget_abandoned, forget_passing
from corral.agent.host import HostIdentity, HostKeeper
from corral.agent.image import ImageKeeper
from corral.agent.memory import Found, Situation
from corral.agent.network import NetworkKeeper
from corral.agent.operations import Progress, Shown, trim_history, trim_journals
from corral.agent.orphans import OrphanHunt
from corral.agent.pool import PoolKeeper
from corral.agent.queue import cancelled
from corral.agent.record import Recorder
from corral.agent.router import RouterKeeper
from corral.agent.shaping import ShapingKeeper
from corral.agent.snapshot_keeper import SnapshotKeeper
from corral.agent.space import SpaceWatch
from corral.agent.status import AWAY, HostKnown
from corral.agent.supervised import log_failure, supervised
from corral.agent.template import TemplateKeeper
from corral.agent.vm import Reconciler
from corral.agent.volume import VolumeKeeper
from corral.agent.volume_work import VolumeWork
from corral.agent.warm import WarmKeeper
from corral.agent.wire import Wire
from corral.clock import Clock
from corral.errors import CorralError
from corral.host.bridging.desertion import DesertionWatch
from corral.hypervisor.base import DomainEvent, HypervisorDriver, ObservedDomain, StopCause
from corral.images.base import ImageFiles, ImageLibrary
from corral.log import logger
from corral.model.image import Image
from corral.model.vm import VmState
from corral.network.base import NetworkDriver
from corral.network.firewall.base import Firewall
from corral.network.ipam import NumberPool
from corral.network.router import RouterDriver
from corral.security.audit import AuditLog
from corral.settings import Settings
from corral.storage.base import VolumeStore
from corral.store.objects import Objects

STOP_GRACE_S: Final = 5.0
HOST_SETTLE_S: Final = 0.1
"""What changes together is counted together."""
HOST_PAUSE_S: Final = 1.0
AWAY_GRACE_S: Final = 5.0
"""A libvirtd that is restarted is back within seconds: nobody need hear of it."""
JANITOR_EVERY_S: Final = 300.0
LOOKS_AT_ONCE: Final = 50
"""Of the VMs that a relist compares between two turns of the event loop: half a millisecond."""

log = logger("agent")


class Agent:
    """`run` until cancelled or `stop`ped. `ready` is set once everything was looked at for the first time."""

    def __init__(
        self,
        objects: Objects,
        hypervisor: HypervisorDriver,
        volumes: VolumeStore,
        library: ImageLibrary,
        networks: NetworkDriver,
        clock: Clock,
        settings: Settings,
        identity: HostIdentity,
        *,
        routers: RouterDriver,
        firewall: Firewall = NO_FIREWALL,
        definition_hash: DefinitionHash,
        seed_files: SeedFiles,
        dac_numbers: NumberPool | None = None,
    ) -> None:
        self.objects, self.hypervisor, self.library = objects, hypervisor, library
        self.volumes, self.networks, self.routers = volumes, networks, routers
        self.clock, self.settings, self.identity = clock, settings, identity
        self.ready = asyncio.Event()
        self._draining = False
        self._stopping = asyncio.Event()
        self._relist = asyncio.Event()
        self._host_changed = asyncio.Event()
        self.cache = Cache(objects, self._on_change)
        self.drivers = Drivers(hypervisor, volumes, networks, seed_files)
        limit_s = settings.hypervisor_timeout_s
        self.executor = Executor(self.cache, self.drivers, limit_s, settings.copy_bytes_per_s)
        self.progress = Progress(objects, self.cache, clock)
        audit = AuditLog(objects.store, identity.installation_id, clock)
        self.recorder = Recorder(objects, self.cache, clock, self.progress, audit, volumes.volume_path, limit_s)
        reconciler = Reconciler(self.cache, self.executor, self.recorder, self.progress, clock, definition_hash)
        self.dispatcher = Dispatcher(reconciler, clock, self._situation, self._after_turn)
        self.guests = GuestWatch(self.cache, self.drivers, self.dispatcher, clock, log_failure)
        self.pools = PoolKeeper(objects, self.cache, volumes, settings, clock)
        self.space = SpaceWatch(self.cache, volumes, self.dispatcher, clock, log_failure, self.pools.wake)
        self.host = HostKeeper(objects, hypervisor, volumes, settings, identity, clock)
        self.network_keeper = NetworkKeeper(objects, self.cache, self.executor, clock)
        router_keeper = RouterKeeper(objects, self.cache, routers, networks, clock, settings)
        self.firewall_keeper = FirewallKeeper(self.cache, firewall)
        self.executor.guard = self.firewall_keeper.guard
        keepers = (self.firewall_keeper, self.network_keeper, ShapingKeeper(self.cache, networks), router_keeper)
        self.wire = Wire(keepers)
        routers.tell(self.wire.wake)
        networks.tell(self.wire.wake)
        self.image_keeper = ImageKeeper(objects, self.cache, library, self.progress, clock)
        self.volume_keeper = VolumeKeeper(
            objects, self.cache, VolumeWork(self.cache, volumes, library), self.progress, clock, self.pools.wake
        )
        self.template_keeper = TemplateKeeper(
            objects, self.cache, self.drivers, library, self.progress, clock, self._places, self._wake_layered
        )
        held = (self.host.capacity, settings.warm_memory_mib, dac_numbers)
        self.warm_keeper = WarmKeeper(objects, self.cache, self.drivers, clock, self._places, *held)
        self.orphans = OrphanHunt(objects, self.cache, self.drivers, identity.installation_id, clock)
        self.snapshot_keeper = SnapshotKeeper(objects, self.cache, volumes, clock)
        self.boot = BootSequence(self.dispatcher, clock, self.cache.vms)
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Everything, until `stop` or cancellation. Nothing that goes wrong below ends it."""
        self.executor.disks.tell(self.dispatcher.wake, self.progress)
        tasks = [
            asyncio.get_running_loop().create_task(supervised(name, call))
            for name, call in (
                ("watch", self._watch),
                ("events", self._events),
                ("relist", self._relists),
                ("images", self.image_keeper.run),
                ("volumes", self.volume_keeper.run),
                ("templates", self.template_keeper.run),
                ("warm", self.warm_keeper.run),
                ("wire", self.wire.run),
                ("kernel", self._kernel),
                ("host", self._host),
                ("host-network", DesertionWatch(self.settings.host_network_dir).run),
                ("pools", self._pools),
                ("janitor", self._janitor),
            )
        ]
        try:
            await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait([*tasks, asyncio.ensure_future(self._close())])

    async def stop(self) -> None:
        """Let running steps reach a safe point, then end `run`."""
        await self.dispatcher.stop(STOP_GRACE_S)
        self._stopping.set()

    async def shutdown_guests(self, tell: Callable[[str], None] = lambda _: None) -> int:
        """Power all guests off, the last started first. Their wish to run stays: they are back with the host."""
        self._draining = True
        return await GuestShutdown(self.hypervisor, self.clock, tell).run(self.cache.vms.values())

    async def _close(self) -> None:
        await self.dispatcher.stop(STOP_GRACE_S)
        await self.executor.disks.close()
        await self.guests.stop()
        await self.space.stop()
        await self.progress.close()
        for task in self._background:
            task.cancel()

    # ---- what wakes it ----

    def _on_change(self, kind: str, uid: str) -> None:
        self.wire.changed(kind)
        if kind == "vm":
            vm = self.cache.vms.get(uid)
            if not self.dispatcher.open and self._may_end_unseen(uid):
                self._relist.set()
            if vm is None or vm.placement is None or vm.placement.host_uid == self.identity.host_uid:
                self.dispatcher.changed(uid)
            self._host_changed.set()
            self.warm_keeper.wake()
        elif kind == "image":
            self.image_keeper.wake()
        elif kind == "volume":
            self.volume_keeper.wake()
        elif kind == "template":
            self.template_keeper.wake()
            self.warm_keeper.wake()
        elif kind == "slot":
            self.warm_keeper.wake()
            self.template_keeper.wake()
        elif kind == "network" and (found := self.cache.networks.get(uid)) and self.network_keeper.has_work(found):
            self.network_keeper.ask(uid)

    async def _watch(self) -> None:
        """The store's changes, from a full list on; `compacted` only means that the list is taken again."""
        revision = await self.cache.load()
        async with contextlib.aclosing(self.objects.store.watch("/", revision)) as changes:
            async for change in changes:
                self.cache.apply(change)

    async def _events(self) -> None:
        async with contextlib.aclosing(self.hypervisor.events()) as events:  # type: ignore[type-var]
            async for event in events:
                self._event(event)

    async def _kernel(self) -> None:
        async with contextlib.aclosing(self.routers.events()) as events:
            async for _ in events:
                self.wire.wake()

    def _event(self, event: DomainEvent) -> None:
        if event.kind == "connected":
            self.dispatcher.forgive()
            self._relist.set()
        elif event.kind == "disconnected":
            self._host_changed.set()
            asyncio.get_running_loop().call_later(AWAY_GRACE_S, self._relist.set)
        elif event.uid in self.cache.vms:
            memory = self.dispatcher.memory(event.uid)
            if event.kind == "reboot":
                memory.known = replace(memory.known, rebooted=True)
            elif event.stop_cause is not StopCause.NONE:
                memory.known = replace(memory.known, stop_cause=event.stop_cause)
            self.dispatcher.wake(event.uid)
            self.wire.wake()
        elif event.stop_cause is not StopCause.NONE:
            self.warm_keeper.heard(event.uid)

    async def _relists(self) -> None:
        """The slow look at everything; also at once after a (re)connection."""
        attempts = 0
        while True:
            self._relist.clear()
            try:
                await self._prepare()
                await self._look_at_all()
                attempts, pause_s = 0, self.settings.relist_interval_s
            except CorralError as error:
                attempts, pause_s = attempts + 1, backoff_s(attempts + 1)
                log.warning("agent loop pauses", loop="relist", error=str(error))
                self._say_waiting(error)
                await self._say_unknown(error)
                await self._end_cancelled(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._relist.wait()

    # ---- looking at everything ----

    async def _prepare(self) -> None:
        """Once: leftovers of a crash away, the host measured, the networks up, the boot's order settled."""
        if self.dispatcher.open:
            return
        await self.host.look()
        facts = self.host.facts
        self.recorder.host = HostKnown(self.host.accelerator, facts.qemu_version if facts else "")
        self.executor.places = Places(
            installation_id=self.identity.installation_id,
            accelerator=self.host.accelerator,
            run_dir=self.settings.run_dir,
            console_dir=self.settings.state_dir / "consoles",
            volume_path=self.volumes.volume_path,
            layer_path=self.volumes.path,
            seed_path=self.volumes.seed_path,
            image_files=self._image_files,
            network_name=self.networks.driver_name,
            templates_dir=self.settings.state_dir / "templates",
            firewalled=self.firewall_keeper.filters,
        )
        await self.volumes.clean()
        await self.library.clean()
        await self.cache.load()

    def _image_files(self, image: Image) -> ImageFiles | None:
        return self.library.files(image.status.facts) if image.status.facts is not None else None

    async def _look_at_all(self) -> None:
        async with asyncio.timeout(self.settings.hypervisor_timeout_s):
            domains = await self.hypervisor.observe_all()
        by_uid = {domain.uid: domain for domain in domains}
        await self.cache.load()
        await self.firewall_keeper.begin()
        async with asyncio.timeout(self.settings.hypervisor_timeout_s * 2):
            await self.network_keeper.look()
        self.wire.wake()
        if not self.dispatcher.open:
            # A VM whose domain is there has taken what was kept for it, though its daemon died before it was removed.
            await self.volumes.layers.forget_heirs(self.cache.vms.keys() - by_uid.keys())
            self._open(by_uid)
        first = not self.ready.is_set()
        for number, (uid, vm) in enumerate(list(self.cache.vms.items())):
            if number % LOOKS_AT_ONCE == 0 and not first:
                await asyncio.sleep(0)
            memory = self.dispatcher.memory(uid)
            if not memory.nothing_new(vm.revision, by_uid.get(uid)) or self.cache.unfinished(uid):
                self.dispatcher.wake(uid, Found(by_uid.get(uid)) if first else None)
        self.warm_keeper.look(domains)
        await self.orphans.run(domains)
        await self.snapshot_keeper.look()
        await self.template_keeper.watch.look()
        if first:
            await forget_abandoned(self.objects, self.cache, self.clock.now())
        await forget_passing(self.objects, self.cache, self.clock.now(), first=first)
        self._host_changed.set()
        self.ready.set()

    def _say_waiting(self, error: CorralError) -> None:
        """Nothing can be looked at; before the first look nothing is tried either, so nobody else would say why."""
        if not self.dispatcher.open:
            for operation in self.cache.all_unfinished():
                shown = Shown(f"waiting: {error.code}", self.clock.now(), detail=error.reason)
                self.progress.show(operation, shown)

    def _may_end_unseen(self, uid: str) -> bool:
        """Before the first look no turn is taken, and somebody cancels what waits for it."""
        return any(cancelled(operation) for operation in self.cache.unfinished(uid))

    async def _end_cancelled(self, error: CorralError) -> None:
        """What was cancelled before anything could be looked at; later a VM's own turn sees to it."""
        if self.dispatcher.open or error.code not in WAITED_FOR:
            return
        for vm in list(self.cache.vms.values()):
            if self._may_end_unseen(vm.uid):
                memory = self.dispatcher.memory(vm.uid)
                await self.dispatcher.reconciler.failed(vm, memory, self._situation(), error)

    async def _say_unknown(self, error: CorralError) -> None:
        """Nobody can tell what runs while the hypervisor is away; the first look afterwards tells again."""
        if error.code != AWAY:
            return
        for vm in list(self.cache.vms.values()):
            if vm.status.state is not VmState.UNKNOWN:
                await self.recorder.note_failure(vm, error)

    def _open(self, by_uid: dict[str, ObservedDomain]) -> None:
        queue = boot_queue(self.cache.vms.values(), by_uid, self.identity.boot_id)
        queue = [vm for vm in queue if not self.cache.unfinished(vm.uid)]
        self.boot.hold(queue)
        self.dispatcher.start()
        if queue:
            task = asyncio.get_running_loop().create_task(self.boot.run(queue))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    # ---- the rest ----

    async def _host(self) -> None:
        """The Host object, after something changed and at most once a second."""
        await self.ready.wait()
        while True:
            await self._host_changed.wait()
            await asyncio.sleep(HOST_SETTLE_S)
            self._host_changed.clear()
            try:
                async with asyncio.timeout(self.settings.hypervisor_timeout_s):
                    self.host.facts = await self.hypervisor.facts()
                self.recorder.host = HostKnown(self.host.accelerator, self.host.facts.qemu_version)
                await self.host.record(list(self.cache.vms.values()), dict(self.cache.templates))
            except (CorralError, TimeoutError):
                self._host_changed.set()  # what has changed is still to be recorded
                raise
            await asyncio.sleep(HOST_PAUSE_S)

    async def _pools(self) -> None:
        await self.ready.wait()
        await self.pools.run()

    async def _janitor(self) -> None:
        """Keeps histories bounded."""
        await self.ready.wait()
        while True:
            await asyncio.sleep(JANITOR_EVERY_S)
            await trim_history(self.objects, self.settings.operation_history)
            await trim_journals(self.objects)

    def _situation(self) -> Situation:
        return Situation(self.identity.installation_id, self.identity.boot_id, self._draining)

    def _places(self) -> Places | None:
        """Once everything was looked at."""
        return self.executor.places if self.dispatcher.open else None

    def _wake_layered(self) -> None:
        for uid, vm in self.cache.vms.items():
            if self.cache.is_layered(vm):
                self.dispatcher.wake(uid)

    def _after_turn(self, uid: str) -> None:
        self.guests.consider(uid)
        self.space.consider(uid)
