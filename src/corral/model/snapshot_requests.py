"""What a caller may ask of points in time."""

from pydantic import Field

from corral.model.base import Model, Name
from corral.model.requests import Description, Labels, example


class CreateSnapshotRequest(Model):
    """All disks of a VM at one instant. A guest that runs goes on."""

    model_config = example({"name": "before-upgrade"}, {"name": "warm", "memory": True})

    name: Name
    """Unique within the VM."""
    description: Description = ""
    memory: bool = False
    """With the guest's memory: going back, it goes on exactly where it was."""
    quiesce: bool = False
    """The guest's agent freezes its file systems for that instant, and thaws them whatever happens."""
    labels: Labels = Field(default_factory=dict)
