"""The typed client's calls for stacks: plans, and the actions that they are made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from corral.client_http import Query, Transport

if TYPE_CHECKING:
    from corral import client_types as t


class StackCalls:
    """What `Client` can do with stacks."""

    project: str
    _transport: Transport

    def plan_stack(self, body: t.PlanStackRequest) -> t.StackPlan:
        """What it would take; nothing is made by asking."""
        return cast("t.StackPlan", self._ask("POST", "/v1/stacks/plan", body))

    def plan_stack_down(self, body: t.PlanDownRequest) -> t.StackPlan:
        return cast("t.StackPlan", self._ask("POST", "/v1/stacks/plan-down", body))

    def export_stack(self, body: t.ExportStackRequest) -> t.StackExport:
        return cast("t.StackExport", self._ask("POST", "/v1/stacks/export", body))

    def stack_schema(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self._ask("GET", "/v1/stacks/schema"))

    def carry_out(self, action: t.StackAction) -> t.Operation | None:
        """Ask for one action of a plan; the operation that carries it out, None where it is done already (networks).
        Only for actions with a `method`."""
        headers = {"Idempotency-Key": action["key"]} if action["key"] else {}
        answer = self._ask(action["method"], action["path"], action["body"], action["query"], headers)
        return cast("t.Operation | None", answer.get("operation") if answer is not None else None)

    def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Query | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        query = {**(query or {}), "project": self.project}
        content = self._transport.request(method, path, query=query, body=body, headers=headers)
        return json.loads(content) if content else None
