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
    warm: Annotated[int, Field(ge=0, le=limits.WARM_MAX)] = 0
    """Keep so many domains waiting for its memory's state; of a hot one alone."""
    description: Annotated[str, StringConstraints(max_length=limits.DESCRIPTION_MAX_CHARS)] = ""
    labels: Labels = Field(default_factory=dict)


class RefreshTemplateRequest(Model):
    """A template whose memory is taken anew: its guest is booted from its disks, and frozen when it has."""

    model_config = example({}, {"deadline_s": 120})

    deadline_s: Annotated[float, Field(gt=0, le=limits.REFRESH_DEADLINE_MAX_S)] = limits.REFRESH_DEADLINE_DEFAULT_S
    """How long the guest may take to boot."""


class PublishTemplateRequest(Model):
    """Another project that may make VMs of a template."""

    model_config = example({"project": "lab"})

    project: Name


class ForkRequest(Model):
    """New VMs from a template."""

    model_config = example({"names": ["web-1", "web-2"]}, {"names": ["web-1"], "boot": True})

    of_project: Name | None = None
    """The project that the template belongs to, which has published it to this one; null: this one."""

    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=limits.CLONES_MAX)]
    boot: bool = False
    """Boot them from the template's disks, although it has a memory to go on from."""
    force: bool = False
    """Allow disks whose virtual size is larger than the free space (thin provisioning)."""


class LiveForkRequest(Model):
    """New VMs that go on from what a running one is at this instant."""

    model_config = example({"names": ["web-copy"]}, {"names": ["web-copy-1", "web-copy-2"]})

    names: Annotated[tuple[str, ...], Field(min_length=1, max_length=limits.CLONES_MAX)]
    """A VM each, all of one instant."""
    force: bool = False
    """Allow disks whose virtual size is larger than the free space (thin provisioning)."""
