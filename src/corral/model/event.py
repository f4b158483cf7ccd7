"""An event: something that happened, for people and programs that follow along. A journal, not a store object."""

from datetime import datetime
from enum import StrEnum

from corral.model.base import Model


class EventLevel(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(Model):
    time: datetime
    project: str
    level: EventLevel = EventLevel.INFO
    reason: str
    """A CamelCase word a program can compare: `VmStarted`, `GuestPoweredOff`, `ExternalChange`, `OperationFailed`."""
    message: str
    object_kind: str
    object_uid: str
    object_name: str
    operation_uid: str = ""
    source: str
    """`agent`, `service:local:root`, `external:virsh`, `external:guest`."""


class AuditRecord(Model):
    """Who asked for what, and what was answered. Each record names its predecessor's hash: one chain a writer."""

    time: datetime
    writer: str
    """The daemon's installation id."""
    sequence: int
    identity: str
    project: str
    action: str
    """`vm.create`, `vm.exec`, `token.create`; the policy's own word."""
    target: str
    outcome: str
    """`accepted`, `denied`, or an error code."""
    request_id: str
    detail: str = ""
    """Never secrets: parameters are named, not quoted."""
    previous_hash: str
    hash: str
    """sha256 over the record's canonical JSON without this field."""
