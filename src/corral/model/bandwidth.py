"""How much a card, or a whole network, may send and receive, and what it is promised. One direction each."""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from corral.model import limits
from corral.model.base import Model

Rate = Annotated[int, Field(ge=0, le=limits.BANDWIDTH_MAX_BYTES_PER_S)]


class Bandwidth(Model):
    """All zero: no limit, no promise. Rates are bytes a second."""

    average_bytes_per_s: Rate = 0
    """What it may use for long; 0: as much as there is."""
    peak_bytes_per_s: Rate = 0
    """How fast `burst_bytes` go after a quiet time; 0: as fast as the host can."""
    burst_bytes: Annotated[int, Field(ge=0, le=limits.BURST_MAX_BYTES)] = 0
    """How much goes faster than the average after a quiet time; 0: what the average carries in 20 ms, at least 64 KiB."""
    floor_bytes_per_s: Rate = 0
    """Of the network's own limit, this much is kept for it when others want all of it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for rate in (self.average_bytes_per_s, self.peak_bytes_per_s, self.floor_bytes_per_s):
            if 0 < rate < limits.BANDWIDTH_MIN_BYTES_PER_S:
                raise ValueError(f"a rate is at least {limits.BANDWIDTH_MIN_BYTES_PER_S} bytes a second")
        if not self.average_bytes_per_s and (self.peak_bytes_per_s or self.burst_bytes):
            raise ValueError("a peak and a burst are beyond an average: say the average, too")
        if 0 < self.peak_bytes_per_s < self.average_bytes_per_s:
            raise ValueError("the peak is below the average")
        if 0 < self.average_bytes_per_s < self.floor_bytes_per_s:
            raise ValueError("more is promised than the average allows")
        return self


UNLIMITED: Final = Bandwidth()
