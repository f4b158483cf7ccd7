"""Who configures a card, and the plan in that program's own words; refused where it is not clear. Pure."""

from dataclasses import replace

from corral.errors import CorralError
from corral.host.bridging import ifupdown, netplan
from corral.host.bridging.ifupdown import plan_ifupdown
from corral.host.bridging.netplan import plan_netplan
from corral.host.bridging.network_manager import plan_network_manager
from corral.host.bridging.networkd import plan_networkd
from corral.host.bridging.plan import Facts, Manager, Plan, Wish, refuse


def managers_of(facts: Facts) -> tuple[Manager, ...]:
    """Of netplan's cards another one takes care, on its behalf."""
    nic = facts.nic
    if netplan.claims(facts.netplan, nic.name, nic.mac):
        return (Manager.NETPLAN,)
    found = []
    if ifupdown.claims(facts.ifupdown, nic.name):
        found.append(Manager.IFUPDOWN)
    if facts.networkd:
        found.append(Manager.NETWORKD)
    if facts.network_manager is not None:
        found.append(Manager.NETWORK_MANAGER)
    return tuple(found)


def plan_bridge(facts: Facts, bridge: str) -> Plan:
    """Raises `unsupported` or `name-taken`, with what to do instead."""
    return replace(_plan(facts, bridge), addresses=facts.nic.addresses)


def _plan(facts: Facts, bridge: str) -> Plan:
    nic = facts.nic
    wish = Wish(nic.name, bridge, nic.mac)
    _check_card(facts, wish)
    managers = managers_of(facts)
    if not managers:
        reason = f"neither netplan, ifupdown, systemd-networkd nor NetworkManager configures {nic.name} here"
        hint = f"whoever does should make the bridge; then: corral network create lan --bridge {bridge}"
        raise refuse(wish, reason, hint)
    if len(managers) > 1:
        both = " and ".join(managers)
        raise refuse(wish, f"{both} both configure {nic.name}", f"take {nic.name} out of the one that you do not use")
    if managers[0] is Manager.NETPLAN:
        return plan_netplan(facts, wish)
    if managers[0] is Manager.IFUPDOWN:
        return plan_ifupdown(facts, wish)
    if facts.network_manager is not None and managers[0] is Manager.NETWORK_MANAGER:
        return plan_network_manager(facts, wish, facts.network_manager)
    return plan_networkd(facts, wish)


def _check_card(facts: Facts, wish: Wish) -> None:
    nic = facts.nic
    if nic.wireless:
        raise refuse(wish, "it is wireless: an access point takes frames of its own stations alone", "use a wired card")
    if not nic.ethernet or nic.name == "lo":
        raise refuse(wish, "it is no Ethernet card", "ip -brief link")
    if nic.virtual in ("bridge", "tun"):
        raise refuse(wish, f"it is a {nic.virtual} itself", f"corral network create lan --bridge {nic.name}")
    if nic.master:
        hint = f"if {nic.master} is a bridge: corral network create lan --bridge {nic.master}"
        raise refuse(wish, f"it is part of {nic.master} already", hint)
    if wish.bridge in facts.interfaces:
        asked = f"make bridge {wish.bridge} over {wish.nic}"
        raise CorralError(
            "name-taken", asked, f"there is an interface {wish.bridge}", "choose another name: --name br1"
        )
