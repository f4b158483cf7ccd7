"""What every route is handed: the services, who asks, and in which project."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Path, Query
from starlette.requests import HTTPConnection

from corral.api.metrics import ApiMetrics
from corral.errors import CorralError
from corral.model.base import DEFAULT_PROJECT
from corral.model.limits import PAGE_DEFAULT, PAGE_MAX
from corral.model.requests import ListRequest
from corral.names import NAME_PATTERN
from corral.services.bundle import Services
from corral.services.caller import Caller

IDEMPOTENCY_KEY_MAX_CHARS: Final = 128
IDEMPOTENCY_KEY_PATTERN: Final = r"^[!-~]+$"


@dataclass(frozen=True, slots=True)
class Face:
    """What all routes share."""

    services: Services
    metrics: ApiMetrics
    stopping: asyncio.Event
    """Set when the daemon stops: answers that go on end then."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    services: Services
    caller: Caller
    project: str
    stopping: asyncio.Event


async def _face(connection: HTTPConnection) -> Face:
    face: Face = connection.app.state.face
    return face


FaceParam = Annotated[Face, Depends(_face)]


async def _call(
    connection: HTTPConnection,
    face: FaceParam,
    project: Annotated[str, Query(pattern=NAME_PATTERN, description="The project that is meant.")] = DEFAULT_PROJECT,
) -> Call:
    caller = Caller(connection.state.identity, connection.state.request_id)
    return Call(face.services, caller, project, face.stopping)


async def _changing_call(
    connection: HTTPConnection,
    face: FaceParam,
    project: Annotated[str, Query(pattern=NAME_PATTERN, description="The project that is meant.")] = DEFAULT_PROJECT,
    idempotency_key: Annotated[
        str,
        Header(
            max_length=IDEMPOTENCY_KEY_MAX_CHARS,
            pattern=IDEMPOTENCY_KEY_PATTERN,
            description="A word of the caller's own: the same word again answers with the same operation.",
        ),
    ] = "",
) -> Call:
    caller = Caller(connection.state.identity, connection.state.request_id, idempotency_key)
    return Call(face.services, caller, project, face.stopping)


async def _list_request(
    selector: Annotated[str, Query(max_length=1024, description="Labels: `env=prod,tier!=db,backup,!old`.")] = "",
    fields: Annotated[
        str,
        Query(
            max_length=1024,
            description="Fields to show: `name,status.state`; each document then holds these alone, whatever its schema requires.",
        ),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="Objects a page.")] = PAGE_DEFAULT,
    after: Annotated[str, Query(alias="continue", max_length=64, description="`continue` of the page before.")] = "",
    revision: Annotated[int | None, Query(ge=0, description="Read all pages at this revision.")] = None,
) -> ListRequest:
    return ListRequest(selector=selector, fields=fields, limit=limit, after=after, revision=revision)


async def _if_revision(
    if_match: Annotated[str, Header(max_length=64, description='The ETag that was read: `"812"`.')] = "",
) -> int | None:
    """The revision that If-Match names (RFC 9110, 13.1.1); None without one, or for `*`."""
    text = if_match.strip()
    if text in ("", "*"):
        return None
    number = text.removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit()):
        raise CorralError(
            "invalid-argument", f"If-Match {text!r}", "not an ETag of this API", 'send the ETag of a document: "812"'
        )
    return int(number)


CallParam = Annotated[Call, Depends(_call)]
ChangeParam = Annotated[Call, Depends(_changing_call)]
ListParam = Annotated[ListRequest, Depends(_list_request)]
IfRevisionParam = Annotated[int | None, Depends(_if_revision)]
NameParam = Annotated[str, Path(max_length=256, description="Its name.")]
