"""The typed client's calls for networks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t


class NetworkCalls:
    """What `Client` can do with networks."""

    project: str
    _transport: Transport

    def get_network(self, name: str) -> t.Network:
        return cast("t.Network", self._network("GET", f"/{path_name(name)}"))

    def create_network(self, body: t.CreateNetworkRequest) -> t.Network:
        """Answers when it is up, or has a reason not to be."""
        return cast("t.Network", self._network("POST", "", body))

    def change_network(self, name: str, body: t.ChangeNetworkRequest, *, if_revision: int | None = None) -> t.Network:
        """Answers when it runs so, or says why it does not yet."""
        return cast("t.Network", self._network("PATCH", f"/{path_name(name)}", body, if_revision))

    def delete_network(self, name: str) -> None:
        self._network("DELETE", f"/{path_name(name)}")

    def network_usage(self) -> t.NetworkUsageReport:
        """What passes the cards of running VMs; rates since the request before."""
        content = self._transport.request("GET", "/v1/usage/networks", query={"project": self.project})
        return cast("t.NetworkUsageReport", json.loads(content))

    def _network(self, method: str, path: str, body: object = None, if_revision: int | None = None) -> Any:
        query: dict[str, Any] = {"project": self.project}
        headers = {} if if_revision is None else {"If-Match": f'"{if_revision}"'}
        content = self._transport.request(method, f"/v1/networks{path}", query=query, body=body, headers=headers)
        return json.loads(content) if content else None
