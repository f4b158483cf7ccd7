"""The typed client's calls for hosts, and for the host's own network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t

APPLY_TIMEOUT_S: Final = 130.0
DOCTOR_TIMEOUT_S: Final = 120.0


class HostCalls:
    """What `Client` can do with the host that answers, and with its own network."""

    _transport: Transport

    def get_host(self, name: str = "self") -> t.Host:
        return cast("t.Host", json.loads(self._transport.request("GET", f"/v1/hosts/{path_name(name)}")))

    def doctor(self) -> list[t.Finding]:
        content = self._transport.request("GET", "/v1/host/doctor", timeout_s=DOCTOR_TIMEOUT_S)
        return cast("list[t.Finding]", json.loads(content)["items"])

    def host_network(self) -> t.HostNetworkChange:
        return cast("t.HostNetworkChange", self._host("GET", ""))

    def plan_host_bridge(self, body: t.BridgeRequest) -> t.BridgePlan:
        return cast("t.BridgePlan", self._host("POST", "/bridge/plan", body))

    def make_host_bridge(self, body: t.BridgeRequest) -> t.HostNetworkChange:
        """Answers once it is applied, or was taken back."""
        return cast("t.HostNetworkChange", self._host("POST", "/bridge", body))

    def confirm_host_network(self) -> t.HostNetworkChange:
        return cast("t.HostNetworkChange", self._host("POST", "/confirm"))

    def roll_back_host_network(self) -> t.HostNetworkChange:
        return cast("t.HostNetworkChange", self._host("POST", "/rollback"))

    def _host(self, method: str, path: str, body: object = None) -> Any:
        content = self._transport.request(method, f"/v1/host/network{path}", body=body, timeout_s=APPLY_TIMEOUT_S)
        return json.loads(content)
