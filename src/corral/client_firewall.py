"""The typed client's calls for security groups, network policies and the firewall."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t


class FirewallCalls:
    """What `Client` can do with the firewall."""

    project: str
    _transport: Transport

    def list_security_groups(self) -> list[t.SecurityGroup]:
        return self._all("security-groups")

    def list_network_policies(self) -> list[t.NetworkPolicy]:
        return self._all("network-policies")

    def get_security_group(self, name: str) -> t.SecurityGroup:
        return cast("t.SecurityGroup", self._firewall("GET", f"security-groups/{path_name(name)}"))

    def create_security_group(self, body: t.CreateSecurityGroupRequest) -> t.SecurityGroup:
        return cast("t.SecurityGroup", self._firewall("POST", "security-groups", body))

    def update_security_group(self, name: str, body: t.UpdateSecurityGroupRequest) -> t.SecurityGroup:
        return cast("t.SecurityGroup", self._firewall("PATCH", f"security-groups/{path_name(name)}", body))

    def delete_security_group(self, name: str) -> None:
        self._firewall("DELETE", f"security-groups/{path_name(name)}")

    def get_network_policy(self, name: str) -> t.NetworkPolicy:
        return cast("t.NetworkPolicy", self._firewall("GET", f"network-policies/{path_name(name)}"))

    def create_network_policy(self, body: t.CreateNetworkPolicyRequest) -> t.NetworkPolicy:
        return cast("t.NetworkPolicy", self._firewall("POST", "network-policies", body))

    def update_network_policy(self, name: str, body: t.UpdateNetworkPolicyRequest) -> t.NetworkPolicy:
        return cast("t.NetworkPolicy", self._firewall("PATCH", f"network-policies/{path_name(name)}", body))

    def delete_network_policy(self, name: str) -> None:
        self._firewall("DELETE", f"network-policies/{path_name(name)}")

    def _firewall(self, method: str, path: str, body: object = None) -> Any:
        content = self._transport.request(method, f"/v1/{path}", query={"project": self.project}, body=body)
        return json.loads(content) if content else None

    def _all(self, path: str) -> list[Any]:
        found: list[Any] = []
        after: str | None = ""
        while after is not None:
            query = {"project": self.project, **({"after": after} if after else {})}
            page = json.loads(self._transport.request("GET", f"/v1/{path}", query=query))
            found += page["items"]
            after = page["continue"]
        return found
