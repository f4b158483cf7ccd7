"""The typed client's calls for routers, port forwards, floating addresses and load balancers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t


class RouterCalls:
    """What `Client` can do with routers, and what hangs on them."""

    project: str
    _transport: Transport

    def list_routers(self) -> list[t.Router]:
        return self._every("routers")

    def get_router(self, name: str) -> t.Router:
        return cast("t.Router", self._routing("GET", f"routers/{path_name(name)}"))

    def create_router(self, body: t.CreateRouterRequest) -> t.Router:
        """Answers when it routes, or has a reason not to."""
        return cast("t.Router", self._routing("POST", "routers", body))

    def update_router(self, name: str, body: t.UpdateRouterRequest) -> t.Router:
        return cast("t.Router", self._routing("PATCH", f"routers/{path_name(name)}", body))

    def delete_router(self, name: str) -> None:
        self._routing("DELETE", f"routers/{path_name(name)}")

    def list_forwards(self) -> list[t.Forward]:
        return self._every("forwards")

    def get_forward(self, name: str) -> t.Forward:
        return cast("t.Forward", self._routing("GET", f"forwards/{path_name(name)}"))

    def create_forward(self, body: t.CreateForwardRequest) -> t.Forward:
        return cast("t.Forward", self._routing("POST", "forwards", body))

    def delete_forward(self, name: str) -> None:
        self._routing("DELETE", f"forwards/{path_name(name)}")

    def list_addresses(self) -> list[t.FloatingAddress]:
        return self._every("addresses")

    def get_address(self, name: str) -> t.FloatingAddress:
        return cast("t.FloatingAddress", self._routing("GET", f"addresses/{path_name(name)}"))

    def create_address(self, body: t.CreateAddressRequest) -> t.FloatingAddress:
        return cast("t.FloatingAddress", self._routing("POST", "addresses", body))

    def assign_address(self, name: str, vm: str | None) -> t.FloatingAddress:
        """To nobody where `vm` is None."""
        return cast("t.FloatingAddress", self._routing("PATCH", f"addresses/{path_name(name)}", {"vm": vm}))

    def delete_address(self, name: str) -> None:
        self._routing("DELETE", f"addresses/{path_name(name)}")

    def list_balancers(self) -> list[t.Balancer]:
        return self._every("balancers")

    def get_balancer(self, name: str) -> t.Balancer:
        return cast("t.Balancer", self._routing("GET", f"balancers/{path_name(name)}"))

    def create_balancer(self, body: t.CreateBalancerRequest) -> t.Balancer:
        return cast("t.Balancer", self._routing("POST", "balancers", body))

    def update_balancer(self, name: str, body: t.UpdateBalancerRequest) -> t.Balancer:
        return cast("t.Balancer", self._routing("PATCH", f"balancers/{path_name(name)}", body))

    def delete_balancer(self, name: str) -> None:
        self._routing("DELETE", f"balancers/{path_name(name)}")

    def _routing(self, method: str, path: str, body: object = None) -> Any:
        content = self._transport.request(method, f"/v1/{path}", query={"project": self.project}, body=body)
        return json.loads(content) if content else None

    def _every(self, path: str) -> list[Any]:
        found: list[Any] = []
        after: str | None = ""
        while after is not None:
            query = {"project": self.project, **({"continue": after} if after else {})}
            page = json.loads(self._transport.request("GET", f"/v1/{path}", query=query))
            found += page["items"]
            after = page["continue"]
        return found
