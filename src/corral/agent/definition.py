"""From a VM's wish to the domain's definition, and what recovery finds in its metadata. Pure."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from corral.errors import CorralError
from corral.hypervisor.base import (
    Accelerator,
    DirectKernel,
    DomainDefinition,
    DomainDisk,
    DomainMetadata,
    DomainNic,
)
from corral.images.base import ImageFiles
from corral.model.image import Image
from corral.model.layer import Layer, chain_of
from corral.model.network import Network
from corral.model.vm import DAC_UID_ANNOTATION, DiskSpec, NicSpec, Vm
from corral.model.volume import Volume
from corral.names import tap_name

DefinitionHash = Callable[[DomainDefinition], str]

# What the metadata does not hold: observations, what the store itself counts, the one field that changes with every
# start and stop, and secrets (they are in the seed).
_NOT_RECOVERED: Final = {
    "status": True,
    "revision": True,
    "generation": True,
    "deletion_requested_at": True,
    "spec": {"power": True, "cloud_init": {"user_data": True, "users": {"__all__": {"password_hash": True}}}},
}


@dataclass(frozen=True)
class Places:
    """Where things lie and what this host is: all that a definition needs besides the objects."""

    installation_id: str
    accelerator: Accelerator
    run_dir: Path
    console_dir: Path
    volume_path: Callable[[Volume], Path]
    layer_path: Callable[[str, str], Path]
    """By its uid and its pool."""
    seed_path: Callable[[str], Path]
    image_files: Callable[[Image], ImageFiles | None]
    network_name: Callable[[Network], str]
    templates_dir: Path = Path()
    firewalled: bool = False
    """Ports begin isolated: whoever loads their rules lifts them out of it."""


@dataclass(frozen=True)
class Surroundings:
    """The objects that one VM's definition refers to, by uid."""

    volumes: Mapping[str, Volume]
    images: Mapping[str, Image]
    networks: Mapping[str, Network]
    layers: Mapping[str, Layer] = field(default_factory=dict)


def recovery_json(vm: Vm) -> str:
    """The VM as JSON for its domain's metadata; also tells whether a domain carries the newest document."""
    return vm.model_dump_json(exclude=_NOT_RECOVERED)  # type: ignore[arg-type]


def recovered_nics(spec_json: str) -> tuple[NicSpec, ...]:
    """The cards that a domain's metadata speaks of. Text that another version wrote may have none that is understood."""
    try:
        found = json.loads(spec_json)["spec"]["nics"]
        return tuple(NicSpec.model_validate(nic) for nic in found)
    except (ValueError, KeyError, TypeError):
        return ()


def recovered_volumes(spec_json: str) -> frozenset[str]:
    """The volumes that a domain's metadata speaks of, by uid."""
    try:
        return frozenset(str(disk["volume_uid"]) for disk in json.loads(spec_json)["spec"]["disks"])
    except (ValueError, KeyError, TypeError):
        return frozenset()


def build_metadata(vm: Vm, installation_id: str) -> DomainMetadata:
    epoch = vm.placement.epoch if vm.placement is not None else 0
    return DomainMetadata(installation_id, vm.uid, vm.project, vm.name, vm.generation, epoch, recovery_json(vm))


def console_log(console_dir: Path, vm_uid: str) -> Path:
    return console_dir / f"{vm_uid}.log"


def run_dir(base: Path, vm_uid: str) -> Path:
    """Short, since sockets live there."""
    return base / "vm" / vm_uid[:8]


def build_definition(vm: Vm, around: Surroundings, places: Places) -> DomainDefinition:
    """Raises `image-not-found`, `volume-not-found`, `network-not-found`, `chain-broken` if something that it needs is gone."""
    spec = vm.spec
    image = around.images.get(spec.image_uid or "")
    kernel = _kernel(vm, image, places)
    dac_uid = vm.annotations.get(DAC_UID_ANNOTATION)
    return DomainDefinition(
        uid=vm.uid,
        name=vm.domain_name,
        description=spec.description,
        vcpus=spec.vcpus,
        memory_mib=spec.memory_mib,
        cpu_shares=spec.weight,
        accelerator=places.accelerator,
        firmware="uefi" if spec.firmware == "uefi" else "bios",
        disks=tuple(_disk(vm, disk, around, places) for disk in spec.disks),
        nics=tuple(
            DomainNic(
                nic.name,
                nic.mac,
                places.network_name(_network(vm, nic.network_uid, around)),
                nic.model,
                nic.link_up,
                nic.queues,
                nic.pxe,
                filtered=_network(vm, nic.network_uid, around).spec.filtered,
                tap=tap_name(vm.uid, nic.name),
                isolated=places.firewalled,
                mtu=_network(vm, nic.network_uid, around).spec.mtu,
            )
            for nic in spec.nics
        ),
        seed_path=str(places.seed_path(vm.uid)) if spec.cloud_init is not None else None,
        kernel=kernel,
        graphics=spec.graphics,
        run_dir=str(run_dir(places.run_dir, vm.uid)),
        console_log=str(console_log(places.console_dir, vm.uid)),
        dac_uid=int(dac_uid) if dac_uid is not None else None,
        metadata=build_metadata(vm, places.installation_id),
        hardware=spec.hardware,
        graphics_listen=spec.graphics_listen,
    )


def under_other_accelerator(definition: DomainDefinition) -> DomainDefinition:
    """The same, as it would have been defined before the host's accelerator changed."""
    return replace(definition, accelerator="tcg" if definition.accelerator == "kvm" else "kvm")


def _kernel(vm: Vm, image: Image | None, places: Places) -> DirectKernel | None:
    if image is None or image.status.facts is None or not image.status.facts.has_kernel:
        return None
    files = places.image_files(image)
    if files is None or files.kernel is None or files.initrd is None:
        raise CorralError("image-not-found", f"define {vm.name}", f"image {image.name} has lost its kernel")
    return DirectKernel(str(files.kernel), str(files.initrd), image.status.facts.cmdline)


def _disk(vm: Vm, disk: DiskSpec, around: Surroundings, places: Places) -> DomainDisk:
    path = disk.path or ""
    backing: tuple[tuple[str, str], ...] = ()
    shareable = False
    if disk.image_uid is not None:
        path = _medium(vm, disk.image_uid, around, places)
    if disk.volume_uid is not None:
        volume = around.volumes.get(disk.volume_uid)
        if volume is None:
            raise CorralError("volume-not-found", f"define {vm.name}", f"the volume of disk {disk.name} is gone")
        if volume.spec.layer_uid is not None and volume.spec.layer_uid not in around.layers:
            reason = f"layer {volume.spec.layer_uid}, which disk {disk.name} writes to, is missing"
            raise CorralError("chain-broken", f"define {vm.name}", reason, "corral doctor")
        path, backing = str(places.volume_path(volume)), _backing(volume, around, places)
        shareable = volume.spec.shared and not volume.spec.read_only
    return DomainDisk(
        name=disk.name,
        path=path,
        format=disk.format,
        bus=disk.bus.value,
        read_only=disk.read_only,
        backing=backing,
        shared_image=disk.image_uid is not None,
        device=disk.device,
        slot=disk.slot,
        cache=disk.cache,
        aio=disk.aio,
        discard=disk.discard,
        io_thread=disk.io_thread,
        iops_max=disk.iops_max,
        bytes_per_s_max=disk.bytes_per_s_max,
        shareable=shareable,
    )


def _medium(vm: Vm, image_uid: str, around: Surroundings, places: Places) -> str:
    image = around.images.get(image_uid)
    files = places.image_files(image) if image is not None else None
    if files is None or files.disk is None:
        raise CorralError("image-not-found", f"define {vm.name}", "the medium in one of its drives is gone")
    return str(files.disk)


def _backing(volume: Volume, around: Surroundings, places: Places) -> tuple[tuple[str, str], ...]:
    """The layers below the head, nearest first, and the image below them all."""
    chain = chain_of(around.layers, volume.head_uid)
    files = tuple((str(places.layer_path(layer.uid, layer.spec.pool)), layer.spec.format) for layer in chain[1:])
    return (*files, *_image_below(volume, around, places))


def _image_below(volume: Volume, around: Surroundings, places: Places) -> tuple[tuple[str, str], ...]:
    image = around.images.get(volume.spec.image_uid or "")
    files = places.image_files(image) if image is not None else None
    if image is None or image.status.facts is None or files is None or files.disk is None:
        return ()
    return ((str(files.disk), image.status.facts.disk_format),)


def _network(vm: Vm, uid: str, around: Surroundings) -> Network:
    network = around.networks.get(uid)
    if network is None:
        raise CorralError("network-not-found", f"define {vm.name}", "the network of one of its cards is gone")
    return network
