"""Reading objects: pages, selectors and fields over stored bytes. Without a selector nothing is decoded."""

import json
from typing import Any

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
from corral.store.objects import name_claim


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
    documents = tuple(content_of(record) for record in shown)
    if paths:
        documents = tuple(_with_fields(document, paths) for document in documents)
    return Listing(documents, revision, further)


async def get_object(context: Context, caller: Caller, project: str, cls: type[Object], name: str) -> Document:
    """One object's document, by name."""
    await authorize(context, caller, project, f"{cls.KIND}.read", name)
    uid = await context.objects.owner(name_claim(cls.KIND, project, name))
    record = None if uid is None else await context.objects.store.get(f"{cls.prefix()}{uid}")
    if record is None:
        await context.objects.require(cls, project, name)
        raise CorralError(f"{cls.KIND}-not-found", f"{cls.KIND} {name!r}", "it has just been deleted")
    return document_of(record)


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
