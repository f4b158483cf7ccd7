"""What may be asked of templates."""

from typing import Annotated

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model, Name
from corral.model.requests import Labels, example


class CreateTemplateRequest(Model):
    """A template from what a VM is at this instant."""

    model_config = example({"name": "base", "source": "web"}, {"name": "base", "source": "web", "hot": True})

    name: Name
    source: Name
    """The VM; it goes on undisturbed."""
    hot: bool = False
    """With its memory: VMs from it go on from a running guest instead of booting."""
    description: Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)] = ""
    labels: Labels = Field(default_factory=dict)


class ForkRequest(Model):
    """New VMs from a template."""

    model_config = example({"names": ["web-1", "web-2"]}, {"names": ["web-1"], "boot": True})

    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=limits.CLONES_MAX)]
    boot: bool = False
    """Boot them from the template's disks, although it has a memory to go on from."""
    force: bool = False
    """Allow disks whose virtual size is larger than the free space (thin provisioning)."""
