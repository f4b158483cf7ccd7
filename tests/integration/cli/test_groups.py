"""Security groups, network policies and the firewall from the command line, with guests that are pretended."""

from typing import Any


def test_a_group_is_made_carried_explained_and_deleted(corral: Any) -> None:
    corral("security-group", "create", "shop", "--rule", "in tcp/443", "--rule", "out any").ok()
    assert corral("sg", "list", "-o", "name").ok().out.split() == ["shop", "default", "open"]
    corral("sg", "rule", "add", "shop", "in", "tcp/22", "from", "group:default").ok()
    shown = corral("sg", "show", "shop").ok().out
    assert "in tcp/22 from group:default" in shown
    corral("create", "--name", "fronted", "--image", "micro", "--network", "default,groups=shop").ok()
    corral("create", "--name", "behind", "--image", "micro").ok()
    asked = ("firewall", "explain", "fronted", "--from", "behind", "--port")
    assert corral(*asked, "22", "-o", "name").ok().out == "allowed\n"
    denied = corral(*asked, "23")
    assert (denied.status, "no rule of shop lets fronted/net0 take it" in denied.out) == (1, True)
    corral("sg", "rule", "remove", "shop", "in", "tcp/22", "from", "group:default").ok()
    assert corral(*asked, "22").status == 1

    refused = corral("sg", "delete", "nonesuch", "shop")
    assert (refused.status, "card net0 of VM fronted" in refused.err) == (3, True), refused.err
    corral("nic", "set", "fronted", "net0", "--groups", "default").ok()
    assert corral("sg", "delete", "shop").ok().out == "shop: deleted\n"
    assert corral("sg", "show", "shop").status == 3
    corral("delete", "fronted", "behind", "--yes").ok()


def test_a_policy_is_made_changed_and_deleted(corral: Any) -> None:
    tiers = ("--tier", "network:default", "--tier", "group:open")
    corral("network-policy", "create", "apart", *tiers).ok()
    again = corral("network-policy", "create", "apart", *tiers)
    assert (again.status, "name-taken" in again.err) == (4, True), again.err
    exception = "group:open to network:default tcp/80"
    corral("network-policy", "set", "apart", "--unless", exception).ok()
    assert exception in corral("network-policy", "show", "apart").ok().out
    assert corral("network-policy", "delete", "apart").ok().out == "apart: deleted\n"
    assert corral("network-policy", "list", "-o", "json").json == []


def test_the_firewall_says_that_it_is_not_there(corral: Any) -> None:
    status = corral("firewall", "status", "-o", "json").json
    assert (status["active"], status["reason"] != "") == (False, True)
    assert {one["group"] for one in corral("firewall", "counters", "-o", "json").json} >= {"default", "open"}
    assert corral("firewall", "log", "-n", "5", "-o", "json").json == []
