"""Routers whose routes read JSON strictly."""

from collections.abc import Callable, Coroutine
from json import JSONDecodeError
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response


class StrictRequest(Request):
    async def json(self) -> Any:
        """JSON as the standard has it: no NaN, no half surrogate pairs, no hundreds of nested lists."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise JSONDecodeError(str(error), "", 0) from error


class StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def noun_router(tag: str, prefix: str = "") -> APIRouter:
    """The routes of one noun."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=StrictRoute)
