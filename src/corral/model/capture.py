"""Packets of one card, as they pass: what is asked, within bounds that always hold."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from corral.model import limits
from corral.model.base import Model
from corral.model.requests import example

CAPTURE_BYTES_DEFAULT: Final = 64 * 2**20


class CaptureRequest(Model):
    """Whatever bound is met first ends it; what was captured until then is whole."""

    model_config = example({}, {"filter": "tcp port 80", "packets_max": 100, "duration_s": 60})

    filter: Annotated[str, StringConstraints(max_length=limits.CAPTURE_FILTER_MAX_CHARS)] = ""
    """As pcap-filter(7) has it; addresses and ports by number. Empty: everything."""
    bytes_max: Annotated[int, Field(ge=1024, le=limits.CAPTURE_BYTES_MAX)] = CAPTURE_BYTES_DEFAULT
    packets_max: Annotated[int, Field(ge=1, le=limits.CAPTURE_PACKETS_MAX)] = limits.CAPTURE_PACKETS_MAX
    duration_s: Annotated[float, Field(gt=0, le=limits.CAPTURE_DURATION_MAX_S)] = limits.CAPTURE_DURATION_DEFAULT_S
    snap_bytes: Annotated[int, Field(ge=14, le=limits.CAPTURE_SNAP_MAX_BYTES)] = limits.CAPTURE_SNAP_MAX_BYTES
    """How much of each packet is kept: 96 is its headers."""
