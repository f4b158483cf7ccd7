"""Errors as problem+json (RFC 9457): one shape for everything that can go wrong, from the catalogue of codes."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, ValidationException, WebSocketRequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Match

from corral.errors import CorralError, ErrorKind
from corral.model.base import Model

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:corral:error:"
REASON_MAX_CHARS: Final = 4000
# Seconds after which a caller that was too fast, or a daemon that was not ready, may be asked again (RFC 9110, 10.2.3).
RETRY_AFTER_S: Final = 1
METHODS: Final = ("DELETE", "GET", "PATCH", "POST")


class ProblemDocument(Model):
    """What every failed request answers with."""

    type: str
    """A URN of the code: `urn:corral:error:vm-not-found`."""
    title: str
    """The code in words, the same for each occurrence."""
    status: Annotated[int, Field(ge=400, le=599)]
    code: str
    """A word of the catalogue of errors: what a program compares."""
    asked: str
    """What was requested."""
    reason: str
    """What is in the way."""
    hint: str = ""
    """What to do next."""
    context: Annotated[dict[str, str | int | float], Field(default_factory=dict)]
    """Names and figures that a program may want."""
    request_id: str


def problem_document(error: CorralError, request_id: str) -> bytes:
    """The body of a failed request."""
    return json.dumps(
        {
            "type": TYPE_PREFIX + error.code,
            "title": error.code.replace("-", " ").capitalize(),
            "status": error.http_status,
            "code": error.code,
            "asked": _printable(error.asked),
            "reason": _printable(error.reason)[:REASON_MAX_CHARS],
            "hint": error.hint,
            "context": {
                key: _printable(value) if isinstance(value, str) else value for key, value in error.context.items()
            },
            "request_id": request_id,
        }
    ).encode()


def problem_headers(error: CorralError) -> dict[str, str]:
    """What HTTP itself wants beside the body."""
    headers = {}
    if error.kind is ErrorKind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = 'Bearer realm="corral"'
    if error.kind is ErrorKind.RATE_LIMITED:
        headers["Retry-After"] = str(error.context.get("retry_after_s", RETRY_AFTER_S))
    if error.kind is ErrorKind.UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return headers


def problem_response(error: CorralError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        problem_document(error, request_id),
        status_code=error.http_status,
        headers={**problem_headers(error), **(headers or {})},
        media_type=MEDIA_TYPE,
    )


def internal_error() -> CorralError:
    """The answer to an exception that nobody foresaw: nothing of it leaves the daemon but the request's id."""
    return CorralError(
        "internal",
        "answer the request",
        "the daemon met an error that it did not expect",
        "its log holds the details under this request id (`corral daemon logs`)",
    )


def install(app: FastAPI) -> None:
    """Map every kind of exception that a route can raise. `internal` is logged by the outermost layer."""

    async def coded(connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, CorralError)
        return problem_response(error, connection.state.request_id)

    async def invalid(connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, ValidationException)
        return problem_response(validation_error(error.errors()), connection.state.request_id)

    async def http(connection: HTTPConnection, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refusal = http_error(connection, error.status_code)
        headers = {"Allow": str(refusal.context["allowed"])} if refusal.kind is ErrorKind.METHOD else None
        return problem_response(refusal, connection.state.request_id, headers)

    async def unexpected(connection: HTTPConnection, error: Exception) -> Response:
        return problem_response(internal_error(), connection.state.request_id)

    handlers = (
        (CorralError, coded),
        (RequestValidationError, invalid),
        (WebSocketRequestValidationError, invalid),
        (HTTPException, http),
        (Exception, unexpected),
    )
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)


def validation_error(findings: Sequence[Mapping[str, Any]]) -> CorralError:
    """`invalid-document` with the path of the first wrong field; a wrong query, path or header is `invalid-argument`.

    Findings hold what was sent, which may be a secret: only the path and the rule are repeated.
    """
    first = findings[0]
    if first["type"] == "json_invalid":  # its path is a place in the text; its words quote nothing of it
        reason = f"it is not JSON: {first['ctx']['error']}"
        return CorralError("invalid-document", "read the document", reason, "send a JSON document")
    where, *path = first["loc"]
    field = ".".join(str(part) for part in path) or "document"
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    reason = f"{str(first['msg']).removeprefix('Value error, ')}{more}"
    if where != "body":
        return CorralError("invalid-argument", f"{where} parameter {field!r}", reason, context={"field": field})
    hint = "send a JSON document with `Content-Type: application/json`" if not path else ""
    return CorralError("invalid-document", f"field {field!r}", reason, hint, {"field": field, "errors": len(findings)})


def http_error(connection: HTTPConnection, status: int) -> CorralError:
    """The coded error of what the framework itself refuses: no such route, no such method, an unreadable body."""
    scope = connection.scope
    asked = f"{scope.get('method', 'open')} {scope['path']}"
    if status == HTTPStatus.NOT_FOUND:
        return CorralError("route-not-found", asked, "there is no such route", "see /v1/openapi.json")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(_methods_of(connection))
        reason = f"this route knows {allowed}"
        return CorralError("method-not-allowed", asked, reason, context={"allowed": allowed})
    return CorralError("invalid-document", asked, "the body could not be read as JSON", "send a JSON document")


def _methods_of(connection: HTTPConnection) -> list[str]:
    """What may be asked of this path; a path can be several routes, one a method."""
    routes = connection.app.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**connection.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _printable(text: str) -> str:
    """Text that came from a caller may hold half a surrogate pair, which no JSON reader must be given."""
    return text.encode("utf-8", "replace").decode()
