"""What can be asked about networks."""

from typing import Annotated

from pydantic import Field, StringConstraints

from corral.model.bandwidth import UNLIMITED, Bandwidth
from corral.model.base import Model, Name
from corral.model.network import Interface, NetworkMode
from corral.model.requests import Labels, example


class CreateNetworkRequest(Model):
    """A network. With a bridge of the host's: administrators of the server only."""

    model_config = example(
        {"name": "lab"}, {"name": "db", "mode": "isolated", "subnet": "10.20.0.0/24"}, {"name": "lan", "bridge": "br0"}
    )

    name: Name
    mode: NetworkMode | None = None
    """`bridge` where a bridge is named, else `nat`."""
    subnet: Annotated[str, StringConstraints(max_length=18)] = ""
    """IPv4 CIDR, private, /16 to /29; empty: a free one is found."""
    domain: Annotated[
        str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.|$))*$", max_length=200)
    ] = ""
    """DNS suffix of its guests' names; empty: the network's name and `.internal`."""
    bridge: Interface | None = None
    """A bridge of the host's that is there."""
    bandwidth_in: Bandwidth = UNLIMITED
    bandwidth_out: Bandwidth = UNLIMITED
    labels: Labels = Field(default_factory=dict)
