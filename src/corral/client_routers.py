"""The typed client's calls for routers, port forwards, floating addresses and load balancers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from corral.client_calls import Calls
from corral.client_guest import path_name

if TYPE_CHECKING:
    from corral import client_types as t


class RouterCalls(Calls):
    """What `Client` can do with routers, and what hangs on them."""

    def list_routers(self) -> list[t.Router]:
        return self._pages("routers")

    def get_router(self, name: str) -> t.Router:
        return cast("t.Router", self._get(f"/routers/{path_name(name)}"))

    def create_router(self, body: t.CreateRouterRequest) -> t.Router:
        """Answers when it routes, or has a reason not to."""
        return cast("t.Router", self._change("POST", "/routers", body))

    def update_router(self, name: str, body: t.UpdateRouterRequest) -> t.Router:
        return cast("t.Router", self._change("PATCH", f"/routers/{path_name(name)}", body))

    def delete_router(self, name: str) -> None:
        self._change("DELETE", f"/routers/{path_name(name)}")

    def list_forwards(self) -> list[t.Forward]:
        return self._pages("forwards")

    def get_forward(self, name: str) -> t.Forward:
        return cast("t.Forward", self._get(f"/forwards/{path_name(name)}"))

    def create_forward(self, body: t.CreateForwardRequest) -> t.Forward:
        return cast("t.Forward", self._change("POST", "/forwards", body))

    def delete_forward(self, name: str) -> None:
        self._change("DELETE", f"/forwards/{path_name(name)}")

    def list_addresses(self) -> list[t.FloatingAddress]:
        return self._pages("addresses")

    def get_address(self, name: str) -> t.FloatingAddress:
        return cast("t.FloatingAddress", self._get(f"/addresses/{path_name(name)}"))

    def create_address(self, body: t.CreateAddressRequest) -> t.FloatingAddress:
        return cast("t.FloatingAddress", self._change("POST", "/addresses", body))

    def assign_address(self, name: str, vm: str | None) -> t.FloatingAddress:
        """To nobody where `vm` is None."""
        return cast("t.FloatingAddress", self._change("PATCH", f"/addresses/{path_name(name)}", {"vm": vm}))

    def delete_address(self, name: str) -> None:
        self._change("DELETE", f"/addresses/{path_name(name)}")

    def list_balancers(self) -> list[t.Balancer]:
        return self._pages("balancers")

    def get_balancer(self, name: str) -> t.Balancer:
        return cast("t.Balancer", self._get(f"/balancers/{path_name(name)}"))

    def create_balancer(self, body: t.CreateBalancerRequest) -> t.Balancer:
        return cast("t.Balancer", self._change("POST", "/balancers", body))

    def update_balancer(self, name: str, body: t.UpdateBalancerRequest) -> t.Balancer:
        return cast("t.Balancer", self._change("PATCH", f"/balancers/{path_name(name)}", body))

    def delete_balancer(self, name: str) -> None:
        self._change("DELETE", f"/balancers/{path_name(name)}")
