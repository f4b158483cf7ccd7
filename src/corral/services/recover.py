"""Recovery of a lost database: networks, images, volumes, VMs and all that is on their wires from what lies on the host.

VMs come from the metadata in their domains, volumes from the sidecars beside their files, images from their manifests; what
nothing on the host tells of (groups, routers, …) from sidecars beside the database.
Each object is written by itself, so that a recovery that was cut is simply run again.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from corral.errors import CorralError
from corral.hypervisor.base import ObservedDomain
from corral.images.base import FoundImage
from corral.model.address import FloatingAddress
from corral.model.answers import RecoveryReport
from corral.model.balancer import Balancer
from corral.model.base import DEFAULT_PROJECT, Object
from corral.model.forward import Forward
from corral.model.image import Image, ImageState, ImageStatus
from corral.model.network import Network, NetworkSpec
from corral.model.network_policy import NetworkPolicy
from corral.model.router import Router
from corral.model.security_group import SecurityGroup
from corral.model.vm import (
    DAC_UID_ANNOTATION,
    DAC_UID_FIRST,
    RECOVERED_ANNOTATION,
    NicSpec,
    Placement,
    Power,
    Vm,
    VmSpec,
    VmState,
    VmStatus,
)
from corral.model.volume import Volume, VolumeStatus
from corral.names import new_uid
from corral.network import ipam
from corral.network.addresses import address6_of
from corral.services.context import Context
from corral.services.network_rules import reservation_claims
from corral.services.recover_layers import find_tree, with_heads
from corral.services.recover_wires import recover_wires
from corral.store.objects import claim_key, name_claim

GONE_FOR_GOOD: Final = (
    "operations, events, the audit log and API tokens were in the database alone: they are gone",
    "labels, descriptions and settings are as of the last time the agent wrote them into the domain",
)


@dataclass
class _Recovery:
    """What was found so far."""

    context: Context
    images: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    vms: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


async def recover(context: Context) -> RecoveryReport:
    """Rebuild what can be; raises `precondition-failed` if the store holds VMs, volumes or images of another history."""
    domains = [
        domain
        for domain in await context.hypervisor.observe_all()
        if domain.metadata is not None
        and domain.metadata.installation_id == context.installation_id
        and not domain.waiting
    ]
    work = _Recovery(context)
    volumes = await _found_volumes(work, frozenset(path for domain in domains for _, path in domain.files))
    image_uids = {volume.spec.image_digest: volume.spec.image_uid for volume in volumes.values()}
    named = _named_images(domains)
    images = [
        _image(context, found, image_uids.get(found.facts.digest) or named.get(found.name))
        for found in await context.library.found()
    ]
    await _refuse_other_history(context, {domain.uid for domain in domains} | set(volumes), images)
    for image in images:
        if await _write(work, image):
            work.images.append(image.name)
    tree = await find_tree(context.volumes.layers, domains)
    volumes = with_heads(volumes, tree, _known_vms(domains))
    for volume in volumes.values():
        head = tree.layers.get(volume.head_uid)
        if head is not None and head.spec.pool != volume.spec.pool:  # of the place that it was moved from
            tree.layers[head.uid] = head.alone_in(volume.spec.pool)
    for layer in tree.needed(volumes):
        await _write(work, layer)
    for volume in volumes.values():
        if await _write(work, volume):
            work.volumes.append(volume.name)
    for network in await _networks(work):
        await _write(work, network)
    for domain in domains:
        await _recover_vm(work, domain, volumes)
    for snapshot in tree.snapshots.values():
        await _write(work, snapshot)
    work.lost += tree.lost
    wires = await recover_wires(context)
    work.lost += wires.lost
    networks = [network.name for network in await context.objects.list(Network)]
    lost = (*work.lost, *GONE_FOR_GOOD)
    return RecoveryReport(
        networks=tuple(networks),
        images=tuple(work.images),
        volumes=tuple(work.volumes),
        vms=tuple(work.vms),
        security_groups=wires.names(SecurityGroup),
        network_policies=wires.names(NetworkPolicy),
        routers=wires.names(Router),
        balancers=wires.names(Balancer),
        forwards=wires.names(Forward),
        addresses=wires.names(FloatingAddress),
        lost=lost,
    )


async def _networks(work: _Recovery) -> list[Network]:
    """Those that the hypervisor still has, but for the default one, which is there since the daemon's start."""
    known = {network.name for network in await work.context.objects.list(Network)}
    found = []
    for seen in await work.context.networks.observe_all():
        if not seen.ours or seen.ours in known:
            continue
        plain = {"mode": seen.mode, "subnet": seen.subnet, "domain": seen.domain, "bridge": seen.bridge}
        try:
            known_spec = seen.spec_json
            spec = NetworkSpec.model_validate_json(known_spec) if known_spec else NetworkSpec.model_validate(plain)
            network = Network(name=seen.ours, uid=seen.uid, created_at=work.context.clock.now(), spec=spec)
        except ValidationError:
            work.lost.append(f"network {seen.ours}: {seen.name} reads otherwise than one of ours")
            continue
        found.append(network)
    return found


async def _refuse_other_history(context: Context, found_uids: set[str], images: list[Image]) -> None:
    """Objects that a cut recovery wrote are fine; anything else would be mixed up."""
    names = {image.name for image in images}
    strangers = [vm.name for vm in await context.objects.list(Vm) if vm.uid not in found_uids]
    strangers += [volume.name for volume in await context.objects.list(Volume) if volume.uid not in found_uids]
    strangers += [image.name for image in await context.objects.list(Image) if image.name not in names]
    if strangers:
        raise CorralError(
            "precondition-failed",
            "recover",
            f"the database is not empty: it knows {', '.join(strangers[:5])}",
            "recover is for a lost database; stop the daemon and move corral.db away if this one is to be given up",
            {"objects": len(strangers)},
        )


async def _found_volumes(work: _Recovery, used: frozenset[str]) -> dict[str, Volume]:
    """One that was being moved lies in two places: what its guest writes to counts."""
    volumes: dict[str, Volume] = {}
    for found in await work.context.volumes.found():
        if found.document is None:
            work.lost.append(f"{found.path} has no sidecar: its size and owner are unknown, the file is left as it is")
            continue
        try:
            volume = Volume.model_validate_json(found.document)
        except ValidationError:
            work.lost.append(f"the sidecar of {found.path} cannot be read, the file is left as it is")
            continue
        if volume.uid in volumes and str(found.path) not in used:
            continue
        status = VolumeStatus(ready=True, path=str(found.path), allocated_bytes=found.allocated_bytes)
        volumes[volume.uid] = volume.model_copy(update={"status": status, "revision": 0})
    return volumes


def _known_vms(domains: list[ObservedDomain]) -> list[tuple[Vm, ObservedDomain]]:
    found = []
    for domain in domains:
        assert domain.metadata is not None
        with suppress(ValidationError):  # said when the VM itself is rebuilt
            found.append((Vm.model_validate_json(domain.metadata.spec_json), domain))
    return found


def _named_images(domains: list[ObservedDomain]) -> dict[str, str]:
    """The uids of images by name, as the VMs know them: no volume stands on a kernel alone, or on a medium."""
    uids: dict[str, str] = {}
    for domain in domains:
        assert domain.metadata is not None
        with suppress(ValidationError):  # said when the VM itself is rebuilt
            spec = Vm.model_validate_json(domain.metadata.spec_json).spec
            known = [(spec.image, spec.image_uid), *((disk.image, disk.image_uid) for disk in spec.disks)]
            uids.update({name: uid for name, uid in known if name and uid})
    return uids


def _image(context: Context, found: FoundImage, uid: str | None) -> Image:
    """Its uid is what the volumes or VMs made from it say; nobody needs the old one of an image without any."""
    return Image(
        name=found.name,
        uid=uid or new_uid(),
        created_at=context.clock.now(),
        spec=found.spec,
        status=ImageStatus(state=ImageState.READY, facts=found.facts),
    )


async def _recover_vm(work: _Recovery, domain: ObservedDomain, volumes: dict[str, Volume]) -> None:
    metadata = domain.metadata
    assert metadata is not None
    try:
        vm = Vm.model_validate_json(metadata.spec_json)
    except ValidationError:
        work.lost.append(f"domain {domain.name} does not say what it is: adopt it (corral adopt {domain.name})")
        return
    for disk in vm.spec.disks:
        if disk.volume_uid is not None and disk.volume_uid not in volumes:
            work.lost.append(f"VM {vm.name}: the file of its disk {disk.name!r} is not there")
    if vm.spec.cloud_init is not None:
        work.lost.append(f"VM {vm.name}: password hashes and user-data are not in its metadata; its seed keeps them")
    power = {VmState.RUNNING: Power.ON, VmState.SHUTTING_DOWN: Power.ON, VmState.PAUSED: Power.PAUSED}
    vm = vm.model_copy(
        update={
            "uid": domain.uid,
            "name": metadata.name,
            "project": metadata.project,
            "generation": max(1, metadata.generation),
            "revision": 0,
            "annotations": {**vm.annotations, RECOVERED_ANNOTATION: work.context.clock.now().isoformat()},
            "placement": Placement(host_uid=work.context.host_uid, epoch=metadata.epoch),
            "spec": vm.spec.model_copy(update={"power": power.get(domain.state, Power.OFF)}),
            "status": VmStatus(
                state=domain.state,
                state_reason=domain.reason,
                observed_generation=max(1, metadata.generation),
                has_saved_memory=domain.has_managed_save,
            ),
        }
    )
    vm = vm.model_copy(update={"spec": await _with_networks(work, vm)})
    if await _write(work, vm):
        work.vms.append(vm.name)


async def _with_networks(work: _Recovery, vm: Vm) -> VmSpec:
    """Cards whose network is gone move to the one of the same name; an address outside of its subnet is dropped."""
    nics: list[NicSpec] = []
    for nic in vm.spec.nics:
        network = await work.context.objects.get(Network, nic.network_uid)
        if network is None:
            network = await work.context.objects.find(Network, DEFAULT_PROJECT, nic.network)
        if network is None:
            work.lost.append(f"VM {vm.name}: network {nic.network!r} of its card {nic.name} is not there")
            nics.append(nic)
            continue
        fits = nic.address and network.spec.subnet and ipam.number_of(network.spec.subnet, nic.address) is not None
        if nic.address and not fits:
            work.lost.append(
                f"VM {vm.name}: address {nic.address} is not one of {network.spec.subnet}, DHCP gives it one, unreserved"
            )
        address = nic.address if fits else ""
        address6 = address6_of(network.spec, address, nic.mac)
        update = {"network_uid": network.uid, "address": address, "address6": address6}
        nics.append(nic.model_copy(update=update))
    return vm.spec.model_copy(update={"nics": tuple(nics)})


async def _write(work: _Recovery, value: Object) -> bool:
    """Write an object with its claims; False if it is there already, or if something else has its name or address."""
    objects = work.context.objects
    if await objects.store.get(value.key) is not None:
        return False
    name = value.claimed_name
    owner = None if name is None else await objects.owner(name_claim(value.KIND, value.project, name))
    if owner is not None:
        if not isinstance(value, Image):
            work.lost.append(f"{value.kind} {value.name} ({value.uid}): another one has its name")
        return False
    transaction = objects.transaction()
    transaction.create(value)
    if isinstance(value, Vm):
        claims = [claim_key("mac", "host", nic.mac) for nic in value.spec.nics]
        claims += [claim_key("address", nic.network_uid, each) for nic in value.spec.nics for each in nic.addresses]
        if (dac_uid := value.annotations.get(DAC_UID_ANNOTATION)) is not None and dac_uid.isdecimal():
            claims.append(claim_key("dac-uid", "host", str(int(dac_uid) - DAC_UID_FIRST)))
        for claim in claims:
            if await objects.owner(claim) is None:
                transaction.claim(claim, value.uid)
            else:
                work.lost.append(f"VM {value.name}: {claim.rpartition('/')[2]} is another VM's too")
    if isinstance(value, Network):
        for claim in sorted(reservation_claims(value.uid, value.spec.reservations)):
            transaction.claim(claim, value.uid)
    await transaction.commit()
    return True
