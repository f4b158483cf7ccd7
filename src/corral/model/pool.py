"""A pool: where volumes lie, and how much of it is taken."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import StringConstraints

from corral.model.base import Model, Object


class PoolLevel(StrEnum):
    """How full it is, by the thresholds of the daemon's settings."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


class PoolSpec(Model):
    driver: Literal["dir"] = "dir"
    path: Annotated[str, StringConstraints(max_length=4096)]
    """The directory."""


class PoolStatus(Model):
    level: PoolLevel = PoolLevel.OK
    reason: str = ""
    """Why it is not `ok`, or cannot be looked at."""
    available: bool = True
    total_bytes: int = 0
    free_bytes: int = 0
    """Of the file system, which others may use too."""
    used_bytes: int = 0
    """Of the file system, by whomever."""
    allocated_bytes: int = 0
    """What the volumes take now."""
    logical_bytes: int = 0
    """What they take once they are filled to the brim."""
    volumes: int = 0

    @property
    def overcommit(self) -> float:
        """Promised over what could be there: above 1 the volumes cannot all be filled."""
        could_be = self.allocated_bytes + self.free_bytes
        return self.logical_bytes / could_be if could_be else 0.0


class Pool(Object):
    """Pools are the host's, and every project's volumes lie in them: they are objects of the project `default`."""

    KIND: ClassVar[str] = "pool"
    PLURAL: ClassVar[str] = "pools"

    kind: Literal["pool"] = "pool"
    spec: PoolSpec
    status: PoolStatus = PoolStatus()
