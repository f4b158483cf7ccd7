"""How the typed client's calls ask: within their project, in JSON, page by page."""

from __future__ import annotations

import json
from typing import Any, cast

from corral.client_http import Query, Transport


class Calls:
    """What the parts of `Client` have in common."""

    project: str
    _transport: Transport

    def _get(self, path: str, query: Query | None = None, timeout_s: float | None = None) -> Any:
        return json.loads(self._bytes(path, query, timeout_s))

    def _bytes(self, path: str, query: Query | None = None, timeout_s: float | None = None) -> bytes:
        query = {**(query or {}), "project": self.project}
        return self._transport.request("GET", f"/v1{path}", query=query, timeout_s=timeout_s)

    def _change(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        query: Query | None = None,
    ) -> Any:
        query = {**(query or {}), "project": self.project}
        sent = {name: value for name, value in (headers or {}).items() if value}
        content = self._transport.request(method, f"/v1{path}", query=query, body=body, headers=sent)
        return json.loads(content) if content else None

    def _items(self, path: str, timeout_s: float | None = None) -> list[Any]:
        return cast("list[Any]", self._get(path, timeout_s=timeout_s)["items"])

    def _pages(self, noun: str, selector: str = "", fields: str = "") -> list[Any]:
        """All pages. Objects that come and go meanwhile may be in them or not; all others are, exactly once."""
        given = {"selector": selector, "fields": fields}
        query: dict[str, str | int | float] = {name: text for name, text in given.items() if text}
        items: list[Any] = []
        while True:
            page = self._get(f"/{noun}", query)
            items += page["items"]
            if page["continue"] is None:
                return items
            query["continue"] = page["continue"]
