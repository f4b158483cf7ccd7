"""Reading objects: pages, selectors and fields over stored bytes. Without a selector nothing is decoded."""

import json
from collections.abc import Iterable
from typing import Any, TypeVar

from corral.errors import CorralError
from corral.model import limits
from corral.model.base import Object
from corral.model.requests import ListRequest
from corral.services.access import authorize, visible
from corral.services.caller import Caller
from corral.services.context import Context
from corral.services.documents import Document, Listing, beginnings, content_of, document_of, uid_of
from corral.services.selectors import Term, matches, parse_fields, parse_selector, select_fields
from corral.store.base import Record
from corral.store.objects import decode, encode, name_claim

T = TypeVar("T", bound=Object)


async def list_objects(
    context: Context, caller: Caller, project: str, cls: type[Object], request: ListRequest
) -> Listing:
    """A page of the objects of a kind in `project`; EVERYWHERE: in all that the caller may see."""
    projects = await visible(context, caller, project, f"{cls.KIND}.read")
    terms, paths = parse_selector(request.selector), parse_fields(request.fields)
    starts = None if projects is None else beginnings(cls.KIND, projects)
    chosen: list[Record] = []
    after, revision, more = request.after, request.revision, True
    # Where most records may be passed over, many are read at a time.
    at_once = limits.PAGE_MAX if terms else request.limit
    while more and len(chosen) <= request.limit:
        page = await context.objects.records(cls, after=after, limit=at_once + 1, revision=revision)
        revision, more, at_once = page.revision, page.more, limits.PAGE_MAX
        after = uid_of(page.records[-1].key) if page.records else after
        chosen += [record for record in page.records if _is_chosen(record, starts, terms)]
    assert revision is not None
    shown = chosen[: request.limit]
    further = uid_of(shown[-1].key) if len(chosen) > request.limit else None
    return Listing(_documents(shown, paths), revision, further)


def further_documents(values: Iterable[Object], request: ListRequest) -> tuple[bytes, ...]:
    """What the request asks for of objects that are there without being stored."""
    terms, paths = parse_selector(request.selector), parse_fields(request.fields)
    records = (Record(value.key, encode(value), value.revision, 0) for value in values)
    return _documents([record for record in records if _is_chosen(record, None, terms)], paths)


async def read_records(context: Context, cls: type[Object], project: str = "") -> list[Record]:
    """All stored records of a kind, of one project or (empty) of all, as of one revision."""
    found: list[Record] = []
    revision, more, after = None, True, ""
    while more:
        page = await context.objects.records(cls, after=after, limit=limits.PAGE_MAX, revision=revision)
        revision, more = page.revision, page.more
        found += page.records
        after = uid_of(found[-1].key) if found else ""
    starts = beginnings(cls.KIND, (project,)) if project else (b"",)
    return [record for record in found if record.value.startswith(starts)]


async def read_objects(context: Context, cls: type[T], project: str) -> list[T]:
    """All objects of a kind in one project, as of one revision. Those of others are not decoded."""
    return [decode(cls, record) for record in await read_records(context, cls, project)]


async def get_object(context: Context, caller: Caller, project: str, cls: type[Object], name: str) -> Document:
    """One object's document, by name."""
    await authorize(context, caller, project, f"{cls.KIND}.read", name)
    uid = await context.objects.owner(name_claim(cls.KIND, project, name))
    record = None if uid is None else await context.objects.store.get(f"{cls.prefix()}{uid}")
    if record is None:
        await context.objects.require(cls, project, name)
        raise CorralError(f"{cls.KIND}-not-found", f"{cls.KIND} {name!r}", "it has just been deleted")
    return document_of(record)


def _documents(records: Iterable[Record], paths: tuple[tuple[str, ...], ...]) -> tuple[bytes, ...]:
    documents = map(content_of, records)
    return tuple(_with_fields(document, paths) if paths else document for document in documents)


def _is_chosen(record: Record, starts: tuple[bytes, ...] | None, terms: tuple[Term, ...]) -> bool:
    if starts is not None and not record.value.startswith(starts):
        return False
    if not terms:
        return True
    labels: dict[str, str] = json.loads(record.value).get("labels", {})
    return matches(terms, labels)


def _with_fields(document: bytes, paths: tuple[tuple[str, ...], ...]) -> bytes:
    decoded: dict[str, Any] = json.loads(document)
    return json.dumps(select_fields(decoded, paths), separators=(",", ":"), ensure_ascii=False).encode()
