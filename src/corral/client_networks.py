"""The typed client's calls for networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from corral.client_calls import Calls
from corral.client_guest import path_name

if TYPE_CHECKING:
    from corral import client_types as t


class NetworkCalls(Calls):
    """What `Client` can do with networks."""

    def get_network(self, name: str) -> t.Network:
        return cast("t.Network", self._get(f"/networks/{path_name(name)}"))

    def create_network(self, body: t.CreateNetworkRequest) -> t.Network:
        """Answers when it is up, or has a reason not to be."""
        return cast("t.Network", self._change("POST", "/networks", body))

    def change_network(self, name: str, body: t.ChangeNetworkRequest, *, if_revision: int | None = None) -> t.Network:
        """Answers when it runs so, or says why it does not yet."""
        headers = {} if if_revision is None else {"If-Match": f'"{if_revision}"'}
        return cast("t.Network", self._change("PATCH", f"/networks/{path_name(name)}", body, headers))

    def delete_network(self, name: str) -> None:
        self._change("DELETE", f"/networks/{path_name(name)}")

    def network_usage(self) -> t.NetworkUsageReport:
        """What passes the cards of running VMs; rates since the request before."""
        return cast("t.NetworkUsageReport", self._get("/usage/networks"))
