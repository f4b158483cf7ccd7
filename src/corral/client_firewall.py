"""The typed client's calls for security groups, network policies and the firewall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from corral.client_calls import Calls
from corral.client_guest import path_name

if TYPE_CHECKING:
    from corral import client_types as t

# An answer that waits comes a little after the time that it was given.
MARGIN_S: Final = 15.0


class FirewallCalls(Calls):
    """What `Client` can do with the firewall."""

    def list_security_groups(self) -> list[t.SecurityGroup]:
        return self._pages("security-groups")

    def list_network_policies(self) -> list[t.NetworkPolicy]:
        return self._pages("network-policies")

    def get_security_group(self, name: str) -> t.SecurityGroup:
        return cast("t.SecurityGroup", self._get(f"/security-groups/{path_name(name)}"))

    def create_security_group(self, body: t.CreateSecurityGroupRequest) -> t.SecurityGroup:
        return cast("t.SecurityGroup", self._change("POST", "/security-groups", body))

    def update_security_group(self, name: str, body: t.UpdateSecurityGroupRequest) -> t.SecurityGroup:
        return cast("t.SecurityGroup", self._change("PATCH", f"/security-groups/{path_name(name)}", body))

    def delete_security_group(self, name: str) -> None:
        self._change("DELETE", f"/security-groups/{path_name(name)}")

    def get_network_policy(self, name: str) -> t.NetworkPolicy:
        return cast("t.NetworkPolicy", self._get(f"/network-policies/{path_name(name)}"))

    def create_network_policy(self, body: t.CreateNetworkPolicyRequest) -> t.NetworkPolicy:
        return cast("t.NetworkPolicy", self._change("POST", "/network-policies", body))

    def update_network_policy(self, name: str, body: t.UpdateNetworkPolicyRequest) -> t.NetworkPolicy:
        return cast("t.NetworkPolicy", self._change("PATCH", f"/network-policies/{path_name(name)}", body))

    def delete_network_policy(self, name: str) -> None:
        self._change("DELETE", f"/network-policies/{path_name(name)}")

    # ---- the firewall itself ---------------------------------------------------------------------------------------

    def firewall_status(self) -> t.FirewallStatus:
        return cast("t.FirewallStatus", self._get("/firewall"))

    def explain_firewall(self, body: t.ExplainRequest) -> t.Explanation:
        return cast("t.Explanation", self._change("POST", "/firewall/explain", body))

    def firewall_counters(self) -> list[t.RuleCount]:
        return self._items("/firewall/counters")

    def firewall_log(self, *, after: int = 0, wait_s: float = 0.0) -> list[t.DeniedPacket]:
        """What was denied after that number; waits for the next one, at most so long."""
        query: dict[str, str | int | float] = {"after": after, "wait_s": wait_s}
        return cast("list[t.DeniedPacket]", self._get("/firewall/log", query, wait_s + MARGIN_S)["items"])
