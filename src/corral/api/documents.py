"""Answers made of bytes that are JSON already, and the shapes that the OpenAPI document names them by."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import Field, TypeAdapter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from corral.images.base import CatalogueEntry
from corral.model.answers import Incapability, UnmanagedDomain, VmUsage
from corral.model.base import Model, Object
from corral.model.doctor import Finding
from corral.model.event import AuditRecord, Event
from corral.model.image import Image
from corral.model.operation import Operation
from corral.model.os import OsInfo
from corral.model.snapshot import Snapshot
from corral.model.template import Template
from corral.model.vm import Vm
from corral.model.volume import Volume
from corral.services.documents import Document, Listing
from corral.store.base import JournalEntry

JSON: Final = "application/json"
T = TypeVar("T")


class Page(Model, Generic[T]):
    """Part of a list. Ask again with `continue` for the next part; null: this was the last one."""

    items: tuple[T, ...]
    revision: int
    """The store's revision that was read: watch from here to see everything that changes afterwards."""
    next: Annotated[str | None, Field(alias="continue")]


class Items(Model, Generic[T]):
    """A whole list."""

    items: tuple[T, ...]


class EventEntry(Event):
    sequence: int
    """Counts up; ask for what came after it, or resume with it."""


class AuditEntry(AuditRecord):
    entry: int
    """The journal's count, to read on after it."""


class OperationAccepted(Model):
    """The change is under way; follow the operation to its end."""

    operation: Operation


class VmAccepted(OperationAccepted):
    vm: Vm | None = None
    """The new VM, where one was made."""
    warnings: tuple[str, ...] = ()
    """What a user should know of it."""


class ClonesAccepted(Model):
    """VMs that come about together; follow each operation to its end."""

    vms: tuple[Vm, ...]
    operations: tuple[Operation, ...]


class LiveForksAccepted(ClonesAccepted):
    pause_ms: float | None = None
    """How long the VM stood still for it; null: these VMs were asked for before."""


class ImageAccepted(OperationAccepted):
    image: Image | None = None
    """The new image, where one was made."""


class SnapshotAccepted(OperationAccepted):
    snapshot: Snapshot | None = None
    """The new snapshot, where one was made."""


class TemplateAccepted(OperationAccepted):
    template: Template | None = None
    """The new template, where one was made."""


class VolumeAccepted(OperationAccepted):
    volume: Volume | None = None
    """The new volume, where one was made."""


class DomainItems(Items[UnmanagedDomain]):
    pass


class FindingItems(Items[Finding]):
    pass


class OsItems(Items[OsInfo]):
    pass


class IncapabilityItems(Items[Incapability]):
    pass


class CatalogueItems(Items[CatalogueEntry]):
    pass


class UsageItems(Items[VmUsage]):
    pass


def document_response(request: Request, document: Document) -> Response:
    """One object with its ETag; 304 where the caller has this very revision."""
    etag = f'"{document.revision}"'
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": etag})
    return Response(document.content, media_type=JSON, headers={"ETag": etag})


def page_response(listing: Listing) -> Response:
    """A list of stored bytes, joined without being looked at."""
    following = b"null" if listing.next is None else b'"%s"' % listing.next.encode()
    body = b'{"items":[%s],"revision":%d,"continue":%s}' % (
        b",".join(listing.documents),
        listing.revision,
        following,
    )
    return Response(body, media_type=JSON)


def accepted_response(operation: Operation, *, warnings: Sequence[str] = (), **made: Object | None) -> Response:
    """202 with the operation and what was made with it."""
    parts = [b'"operation":' + operation.model_dump_json().encode()]
    parts += [b'"warnings":' + to_json(warnings)] if warnings else []
    parts += [b'"%s":%s' % (kind.encode(), _json(value)) for kind, value in made.items()]
    headers = {"Location": f"/v1/operations/{operation.uid}"}
    return Response(b"{" + b",".join(parts) + b"}", status_code=202, media_type=JSON, headers=headers)


def _json(value: Model | None) -> bytes:
    return b"null" if value is None else value.model_dump_json().encode()


def model_response(value: Model, status_code: int = 200) -> Response:
    return Response(value.model_dump_json(), status_code=status_code, media_type=JSON)


def items_response(kind: TypeAdapter[Any], items: Sequence[Any]) -> Response:
    return Response(b'{"items":%s}' % kind.dump_json(tuple(items)), media_type=JSON)


def journal_response(entries: Iterable[JournalEntry], count_name: str) -> Response:
    """Journal entries as they are stored, each with its count in front."""
    body = b",".join(entry_json(entry, count_name) for entry in entries)
    return Response(b'{"items":[%s]}' % body, media_type=JSON)


def entry_json(entry: JournalEntry, count_name: str) -> bytes:
    return b'{"%s":%d,%s' % (count_name.encode(), entry.sequence, entry.value[1:])
