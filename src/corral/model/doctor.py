"""What an examination of the host found: one finding a matter, each with what to do about it."""

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from corral.model.base import Model


class Level(StrEnum):
    """How bad it is: `warning` works but worse than it could, `error` means that VMs cannot run or are not safe."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_ORDER = (Level.OK, Level.INFO, Level.WARNING, Level.ERROR)


class Finding(Model):
    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    """What was looked at, a word a program can compare: `kvm-device`, `disk-space`."""
    level: Level
    found: str
    """What was seen, for people."""
    action: str = ""
    """What to do; empty where there is nothing to do."""


class Report(Model):
    """The answer of `corral doctor`."""

    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Level:
        return max((finding.level for finding in self.findings), key=_ORDER.index, default=Level.OK)
