"""A layer: one file of a disk's chain. Below a volume's head, layers are frozen: nobody writes to them any more.

A volume of which there is no point in time has no Layer: its one file bears its own uid. The chain of a disk is known from
objects alone, never from a file's header, which a guest could have written.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corral.errors import CorralError
from corral.model import limits
from corral.model.base import Model, Object, Uid, written_unless


class LayerSpec(Model):
    pool: str = "default"
    size_bytes: Annotated[int, Field(ge=limits.DISK_MIN_BYTES, le=limits.DISK_MAX_BYTES)]
    """What a guest sees of it."""
    format: Literal["qcow2"] = "qcow2"
    parent_uid: Uid | None = None
    """The layer below."""
    image_uid: Uid | None = None
    """The image at the bottom of the chain, as of the volume that the layer was made for."""
    image_digest: str = ""
    volume_uid: Uid
    """The volume that it was made for."""
    vm_uid: Uid | None = None
    """The VM in whose turns it is merged or removed once nobody refers to it."""
    operation_uid: Annotated[Uid | None, written_unless(None)] = None
    """What it was made by: until that operation has ended, a layer that is not ready is not rubbish."""


class LayerStatus(Model):
    ready: bool = False
    """It is somebody's head, or frozen. Before that it holds nothing."""


class Layer(Object):
    """Its name is its uid; nobody calls it by another."""

    KIND: ClassVar[str] = "layer"
    PLURAL: ClassVar[str] = "layers"

    kind: Literal["layer"] = "layer"
    spec: LayerSpec
    status: LayerStatus = LayerStatus()

    @property
    def claimed_name(self) -> str | None:
        return None

    def overlay(
        self,
        uid: Uid,
        volume_uid: Uid,
        created_at: datetime,
        *,
        project: str = "",
        vm_uid: Uid | None = None,
        operation_uid: Uid | None = None,
    ) -> "Layer":
        """A layer on this one, empty so far, for a volume; in this one's project unless another is said."""
        update = {"parent_uid": self.uid, "volume_uid": volume_uid, "vm_uid": vm_uid, "operation_uid": operation_uid}
        spec = self.spec.model_copy(update=update)
        return Layer(project=project or self.project, name=uid, uid=uid, created_at=created_at, spec=spec)

    def alone_in(self, pool: str) -> "Layer":
        """As it is where it lies there, and leans on nothing any more."""
        update = {"pool": pool, "parent_uid": None, "image_uid": None, "image_digest": ""}
        return self.model_copy(update={"spec": self.spec.model_copy(update=update)})


def chain_of(layers: Mapping[str, Layer], head_uid: str) -> tuple[Layer, ...]:
    """The layers of a disk, from its head down to the one that lies on an image or on nothing. Empty for a volume that
    was never frozen. Raises `chain-broken` for a layer that is missing, for a ring, and for one that is too long."""
    found: list[Layer] = []
    uid: str | None = head_uid if head_uid in layers else None
    while uid is not None:
        layer = layers.get(uid)
        if layer is None:
            raise _broken(head_uid, f"layer {uid}, which {found[-1].uid} lies on, is missing")
        if any(layer.uid == other.uid for other in found):
            raise _broken(head_uid, f"layer {uid} lies on itself")
        if len(found) > limits.CHAIN_LAYERS_MAX:
            raise _broken(head_uid, f"it has more than {limits.CHAIN_LAYERS_MAX} layers")
        found.append(layer)
        uid = layer.spec.parent_uid
    return tuple(found)


def _broken(head_uid: str, reason: str) -> CorralError:
    return CorralError("chain-broken", f"follow the layers of {head_uid}", reason, "corral doctor")


def children_of(layers: Mapping[str, Layer]) -> dict[str, tuple[str, ...]]:
    """Who lies directly on whom."""
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers.values():
        if layer.spec.parent_uid is not None:
            found[layer.spec.parent_uid] = (*found.get(layer.spec.parent_uid, ()), layer.uid)
    return found
