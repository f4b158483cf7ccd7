"""What each step does. Every effect may be repeated; every call is bounded in time."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from corral.agent.cache import Cache
from corral.agent.definition import Places, build_definition, build_metadata, console_log, run_dir
from corral.agent.disk_work import DiskEffects
from corral.agent.fork import ForkEffects
from corral.agent.points import PointEffects
from corral.agent.router_addresses import router_reservations
from corral.agent.steps import (
    ApplyLive,
    AskShutdown,
    CopyVolume,
    Define,
    Destroy,
    ForkFrom,
    GrowVolume,
    Introduce,
    MakeHeads,
    MakeVolume,
    MergeLayer,
    PlaceDisks,
    PlugCards,
    Reboot,
    Release,
    RemoveCopy,
    RemoveHeads,
    RemoveLayer,
    RemovePoint,
    RemoveSeed,
    RemoveTraces,
    RemoveVolume,
    Rename,
    Reserve,
    Reset,
    RestorePoint,
    Resume,
    Save,
    SealDisk,
    SealPoint,
    SetMetadata,
    SinkLayer,
    Start,
    Step,
    StopDiskWork,
    Suspend,
    SwitchDisk,
    TakePoint,
    Undefine,
    WriteSeed,
)
from corral.clock import SystemClock
from corral.errors import CorralError
from corral.hypervisor.base import DomainMetadata, HypervisorDriver, ObservedDomain
from corral.model.base import DEFAULT_POOL
from corral.model.network import Network, Reservation
from corral.model.vm import NicSpec, Vm
from corral.network.base import NetworkDriver
from corral.network.joints import joints_of
from corral.storage.base import Source, VolumeStore
from corral.storage.layers import OnShare

T = TypeVar("T")
SeedFiles = Callable[[Vm], Mapping[str, bytes]]

# How much longer than one hypervisor call a step may take before it counts as hung.
BACKSTOP: Final = 1.5
STORAGE_FACTOR: Final = 4.0
SAVE_FACTOR: Final = 60.0  # a managed save writes the whole memory
MERGE_FACTOR: Final = 3600.0  # it copies a disk, and ends for anything that is wished meanwhile


@dataclass(frozen=True)
class Drivers:
    """The world below, and the places in it."""

    hypervisor: HypervisorDriver
    volumes: VolumeStore
    networks: NetworkDriver
    seed_files: SeedFiles


class Executor:
    """Runs one step at a time for one VM; the caller sees to it that a VM has one caller."""

    def __init__(self, cache: Cache, drivers: Drivers, call_timeout_s: float, background_bytes_per_s: int = 0) -> None:
        self.cache = cache
        self.drivers = drivers
        self.call_timeout_s = call_timeout_s
        self.places: Places | None = None
        """Known once the host has been looked at."""

        self.guard: Callable[[Vm], Awaitable[None]] = _unguarded
        """What is to be done before a guest is plugged in."""
        self.forks = ForkEffects(cache, drivers.hypervisor, SystemClock(), self._placed)
        self.points = PointEffects(
            cache, drivers.hypervisor, drivers.volumes, SystemClock(), self._placed, background_bytes_per_s
        )
        self.disks = DiskEffects(cache, drivers.hypervisor, drivers.volumes, self._placed)

    async def run(
        self, step: Step, vm: Vm, *, active: bool, domain_name: str, on_share: OnShare
    ) -> ObservedDomain | None:
        """Raises what the drivers raise; `hypervisor-timeout` for a call that hangs. `on_share` hears how far a long
        copy is, from 0 to 1. Returns what the domain is after it, where the driver answers with that."""
        if isinstance(step, _PLUGGING):
            await self.bounded(self.guard(vm), f"guard {vm.name}")
        factor = next((factor for kinds, factor in _FACTORS if isinstance(step, kinds)), BACKSTOP)
        if isinstance(step, CopyVolume):
            effect: Awaitable[ObservedDomain | None] = self._copy_volume(step.volume_uid, on_share)
        else:
            effect = self._effect(step, vm, active, domain_name, on_share)
        if isinstance(step, ForkFrom):
            effect = self._guarded_beside(effect, vm)
        return await self.bounded(effect, f"{step.NAME} {vm.name}", factor)

    async def _guarded_beside(self, effect: Awaitable[T], vm: Vm) -> T:
        """Its cards come in the next step, which looks again, and says so where this failed: here it costs no time."""
        guarding = asyncio.ensure_future(self.bounded(self.guard(vm), f"guard {vm.name}"))
        try:
            return await effect
        finally:
            await asyncio.gather(guarding, return_exceptions=True)

    async def bounded(self, call: Awaitable[T], asked: str, factor: float = BACKSTOP) -> T:
        limit_s = self.call_timeout_s * factor
        try:
            async with asyncio.timeout(limit_s):
                return await call
        except TimeoutError as error:
            reason = f"no answer within {limit_s:g} s"
            raise CorralError("hypervisor-timeout", asked, reason, "see `corral doctor`") from error

    def _effect(  # noqa: PLR0911  (a decision table)
        self, step: Step, vm: Vm, active: bool, domain_name: str, on_share: OnShare
    ) -> Awaitable[ObservedDomain | None]:
        hypervisor, volumes = self.drivers.hypervisor, self.drivers.volumes
        effect = self.points.effect(step, vm, active, on_share)
        effect = effect or self.forks.effect(step, vm) or self.disks.effect(step, vm, active)
        if effect is not None:
            return effect
        match step:
            case MakeVolume(volume_uid=uid):
                return self._make_volume(uid)
            case WriteSeed(in_place=in_place):
                return self._write_seed(vm, in_place=in_place)
            case Reserve(nic=nic):
                return self._reserve(vm, nic)
            case GrowVolume():
                return self._grow_volume(vm, step, active)
            case Release(nic=nic):
                return self._release(vm, nic)
            case Define():
                return self._define(vm, active, domain_name)
            case SetMetadata():
                return hypervisor.set_metadata(vm.uid, self._mark(vm))
            case RemoveSeed():
                return volumes.remove_seed(vm.uid)
            case RemoveVolume(volume_uid=uid):
                return self._remove_volume(uid)
            case RemoveTraces():
                return self._remove_traces(vm)
            case _:
                return self._domain_effect(step, vm)

    def _domain_effect(self, step: Step, vm: Vm) -> Awaitable[ObservedDomain | None]:  # noqa: PLR0911  (a decision table)
        hypervisor = self.drivers.hypervisor
        match step:
            case Start(boot_from=device):
                return hypervisor.start(vm.uid, boot_from=device)
            case Resume():
                return hypervisor.resume(vm.uid)
            case Suspend():
                return hypervisor.suspend(vm.uid)
            case Save():
                return hypervisor.save(vm.uid)
            case Destroy():
                return hypervisor.destroy(vm.uid)
            case Undefine():
                return hypervisor.undefine(vm.uid)
            case ApplyLive():
                return hypervisor.apply_live(vm.uid, self._mark(vm))
            case Rename():
                return hypervisor.rename(vm.uid, vm.domain_name)
            case Reset():
                return hypervisor.reset(vm.uid)
            case AskShutdown(mode=mode):
                return ask_shutdown(hypervisor, vm.uid, by_agent=mode == "agent")
            case Reboot(mode=mode):
                return self._reboot(vm, mode == "agent")
        raise AssertionError(f"no effect for {step.NAME}")

    async def _make_volume(self, uid: str) -> None:
        volume = self.cache.volumes[uid]
        layer = self.cache.layers.get(uid)
        if layer is not None and layer.spec.parent_uid is not None:  # it begins on what another VM's disk was
            await self.drivers.volumes.grow(volume, in_use=True)  # which writes the sidecar, and nothing else
            await self.points.make_head(layer)
            return
        image = self.cache.images.get(volume.spec.image_uid or "")
        facts = image.status.facts if image is not None else None
        files = self._placed().image_files(image) if image is not None else None
        if volume.spec.image_uid is not None and (facts is None or files is None):
            raise CorralError("image-not-found", f"make volume {volume.name}", "its image is gone or not ready")
        # An image without a disk of its own boots its kernel: its VMs get an empty disk.
        disk = files.disk if files is not None else None
        await self.drivers.volumes.create(volume, disk, facts.disk_format if facts is not None and disk else "")

    async def _copy_volume(self, uid: str, on_share: OnShare) -> None:
        volume, volumes = self.cache.volumes[uid], self.drivers.volumes
        layer = self.cache.layers.get(volume.spec.copy_of_layer or "")
        if layer is None:
            raise CorralError("snapshot-not-found", f"make volume {volume.name}", "what it is a copy of is gone")
        source = Source(volumes.path(layer.uid, layer.spec.pool), layer.spec.format)
        await volumes.fill(volume, source, on_share)

    async def _remove_volume(self, uid: str) -> None:
        """Where its file has become a layer, that is somebody else's matter."""
        volumes, pool = self.drivers.volumes, self._pool_of(uid)
        await (volumes.layers.forget_volume(uid, pool) if uid in self.cache.layers else volumes.remove(uid, pool))

    def _pool_of(self, volume_uid: str) -> str:
        volume = self.cache.volumes.get(volume_uid)
        return volume.spec.pool if volume is not None else DEFAULT_POOL

    async def _grow_volume(self, vm: Vm, step: GrowVolume, active: bool) -> None:
        """QEMU has the file open while the guest runs, and tells the guest; else the file alone is grown."""
        in_use = active and await self.drivers.hypervisor.grow_disk(vm.uid, step.disk, step.size_bytes)
        await self.drivers.volumes.grow(self.cache.volumes[step.volume_uid], in_use=in_use)

    async def _write_seed(self, vm: Vm, *, in_place: bool) -> None:
        volumes = self.drivers.volumes
        await (volumes.rewrite_seed if in_place else volumes.write_seed)(vm.uid, dict(self.drivers.seed_files(vm)))

    async def _define(self, vm: Vm, active: bool, domain_name: str) -> None:
        definition = build_definition(vm, self.cache.around, self._placed())
        if active or vm.status.has_saved_memory:  # it keeps its name until it is off
            definition = replace(definition, name=domain_name)
        layers = self.drivers.volumes.layers
        inheritance = layers.inheritance(vm.uid)
        if inheritance is None:
            await self.drivers.hypervisor.define(definition)
            return
        await self.drivers.hypervisor.define(replace(definition, begins_with=str(inheritance)))
        await layers.forget_inheritance(vm.uid)  # it has it

    async def _reserve(self, vm: Vm, nic_name: str) -> None:
        nic = next(nic for nic in vm.spec.nics if nic.name == nic_name)
        network = self.cache.networks.get(nic.network_uid)
        if network is None:
            raise CorralError("network-not-found", f"connect {vm.name}", f"network {nic.network} is gone")
        if not network.spec.ours:  # nothing to reserve there; it may just have been made
            await self.drivers.networks.ensure(network, ())
            return
        if not nic.address:
            return
        reservation = reservation_of(vm, nic)
        try:
            await self.drivers.networks.reserve(network, reservation)
        except CorralError as error:
            if error.code != "network-not-found":
                raise
            await self.drivers.networks.ensure(network, reservations_in(self.cache, network))
            await self.drivers.networks.reserve(network, reservation)

    async def _release(self, vm: Vm, nic: NicSpec) -> None:
        network = self.cache.networks.get(nic.network_uid)
        if network is None or (nic not in vm.spec.nics and _is_anothers(self.cache, vm, nic)):
            return
        try:
            await self.drivers.networks.release(network, reservation_of(vm, nic))
        except CorralError as error:
            if error.code != "network-not-found":  # with the network, its reservations are gone
                raise

    async def _remove_traces(self, vm: Vm) -> None:
        await remove_traces(self._placed(), vm.uid)
        if self.drivers.volumes.layers.inheritance(vm.uid) is not None:
            await self.drivers.volumes.layers.forget_inheritance(vm.uid)

    async def _reboot(self, vm: Vm, by_agent: bool) -> None:
        if by_agent:
            try:
                await self.drivers.hypervisor.reboot(vm.uid, "agent")
                return
            except CorralError as error:
                if error.code != "guest-agent-unavailable":  # anything else may have reached the guest
                    raise
        await self.drivers.hypervisor.reboot(vm.uid, "acpi")

    def _mark(self, vm: Vm) -> DomainMetadata:
        return build_metadata(vm, self._placed().installation_id)

    def _placed(self) -> Places:
        if self.places is None:
            raise CorralError("hypervisor-unavailable", "define a domain", "this host has not been looked at yet")
        return self.places


async def remove_traces(places: Places, uid: str) -> None:
    """The console's log and the sockets' directory."""
    log = console_log(places.console_dir, uid)
    directory = run_dir(places.run_dir, uid)

    def remove() -> None:
        for path in (log, *log.parent.glob(f"{log.name}.*")):
            path.unlink(missing_ok=True)
        shutil.rmtree(directory, ignore_errors=True)

    if log.exists() or directory.exists():
        await asyncio.to_thread(remove)


async def _unguarded(_vm: Vm) -> None:
    """Where nothing is filtered."""


_PLUGGING: Final = (Define, Start, ApplyLive, PlugCards, RestorePoint)
_STORAGE: Final = (MakeVolume, GrowVolume, WriteSeed, RemoveSeed, RemoveVolume, RemoveTraces)
_ON_DISKS: Final = (StopDiskWork, SwitchDisk, SealDisk, RemoveCopy)
_FACTORS: Final = (
    ((MergeLayer, SinkLayer, CopyVolume), MERGE_FACTOR),
    ((Save, TakePoint, RestorePoint, ForkFrom, Introduce), SAVE_FACTOR),
    ((*_STORAGE, *_ON_DISKS, MakeHeads, PlaceDisks, SealPoint, RemoveHeads, RemovePoint, RemoveLayer), STORAGE_FACTOR),
)


async def ask_shutdown(hypervisor: HypervisorDriver, uid: str, *, by_agent: bool) -> None:
    """Ask the guest's agent, if that is wished; where it fails, and otherwise, press the power button."""
    if by_agent:
        try:
            await hypervisor.shutdown(uid, "agent")
            return
        except CorralError as error:
            if not error.code.startswith("guest-agent-"):
                raise
    await hypervisor.shutdown(uid, "acpi")


def _is_anothers(cache: Cache, vm: Vm, nic: NicSpec) -> bool:
    """A card that was taken out of a VM may have been given to another one at once: the reservation is that one's now."""
    place = (nic.network_uid, nic.mac)
    others = (other for other in cache.vms.values() if other.uid != vm.uid)
    return any((found.network_uid, found.mac) == place for other in others for found in other.spec.nics)


def reservation_of(vm: Vm, nic: NicSpec) -> Reservation:
    return Reservation(mac=nic.mac, address=nic.address, hostname=vm.name, vm_uid=vm.uid, address6=nic.address6)


def reservations_in(cache: Cache, network: Network) -> tuple[Reservation, ...]:
    """Every address that VMs, and machines that are none of ours, hold in `network`."""
    cards = (
        reservation_of(vm, nic)
        for vm in cache.vms.values()
        for nic in vm.spec.nics
        if nic.network_uid == network.uid and nic.address
    )
    others = (
        Reservation(mac=kept.mac, address=kept.address, hostname=kept.name, vm_uid=network.uid, address6=kept.address6)
        for kept in network.spec.reservations
    )
    return (*cards, *others, *router_reservations(joints_of(cache.layout), network))
