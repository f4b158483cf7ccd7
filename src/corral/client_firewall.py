"""The typed client's calls for security groups, network policies and the firewall."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from corral.client_guest import path_name
from corral.client_http import Transport

if TYPE_CHECKING:
    from corral import client_types as t

# An answer that waits comes a little after the time that it was given.
MARGIN_S: Final = 15.0


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

    # ---- the firewall itself ---------------------------------------------------------------------------------------

    def firewall_status(self) -> t.FirewallStatus:
        return cast("t.FirewallStatus", self._firewall("GET", "firewall"))

    def explain_firewall(self, body: t.ExplainRequest) -> t.Explanation:
        return cast("t.Explanation", self._firewall("POST", "firewall/explain", body))

    def firewall_counters(self) -> list[t.RuleCount]:
        return cast("list[t.RuleCount]", self._firewall("GET", "firewall/counters")["items"])

    def firewall_log(self, *, after: int = 0, wait_s: float = 0.0) -> list[t.DeniedPacket]:
        """What was denied after that number; waits for the next one, at most so long."""
        query = {"project": self.project, "after": str(after), "wait_s": str(wait_s)}
        content = self._transport.request("GET", "/v1/firewall/log", query=query, timeout_s=wait_s + MARGIN_S)
        return cast("list[t.DeniedPacket]", json.loads(content)["items"])

    def _firewall(self, method: str, path: str, body: object = None) -> Any:
        content = self._transport.request(method, f"/v1/{path}", query={"project": self.project}, body=body)
        return json.loads(content) if content else None

    def _all(self, path: str) -> list[Any]:
        found: list[Any] = []
        after: str | None = ""
        while after is not None:
            query = {"project": self.project, **({"continue": after} if after else {})}
            page = json.loads(self._transport.request("GET", f"/v1/{path}", query=query))
            found += page["items"]
            after = page["continue"]
        return found
