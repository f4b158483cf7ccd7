"""Checks of who filters packets here: Corral's own firewall, and others' rules that its guests' packets also pass."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from corral import proc
from corral.errors import CorralError
from corral.host.machine import Machine, info, ok, warning
from corral.model.doctor import Finding
from corral.model.network import Network
from corral.model.vm import Vm, VmState
from corral.names import tap_name
from corral.network.bridge_ports import named_otherwise
from corral.network.firewall.base import FirewallState

NFT_TIMEOUT_S: Final = 5.0
_OWN_TABLES: Final = "corral-"


async def check_filtering(state: FirewallState | None) -> tuple[Finding, ...]:
    if state is None or not state.active:
        reason = state.reason if state is not None else "it was not asked"
        found = f"no firewall of Corral's: {reason}; security groups are kept, and nothing enforces them"
        return (warning("firewall", found, "run the daemon as root on qemu:///system, with nftables and br_netfilter"),)
    keeper = f"its keeper is process {state.keeper_pid}"
    mine = ok("firewall", f"guests are filtered, what is bridged with its connections through {state.path}; {keeper}")
    try:
        done = await proc.run(["nft", "-j", "list", "chains"], timeout_s=NFT_TIMEOUT_S)
    except CorralError as failure:
        return mine, info("others-rules", f"others' rules cannot be read: {failure.reason}")
    return (mine, *check_others(json.loads(done.stdout)["nftables"]))


def check_ports(machine: Machine, vms: Iterable[Vm], networks: Iterable[Network]) -> Finding:
    """A card's port has a name of its own, which the guard at the bridge knows; under another one it is found by its MAC."""
    filtered = {network.uid: network for network in networks if network.spec.filtered}
    running = [vm for vm in vms if vm.status.state is VmState.RUNNING]
    sys_net = machine.path("/sys/class/net")
    renamed = named_otherwise(running, filtered, sys_net)
    cards = {
        tap_name(vm.uid, nic.name): f"{vm.name} {nic.name}"
        for vm in running
        for nic in vm.spec.nics
        if nic.network_uid in filtered
    }
    bare = sorted(name for tap, name in cards.items() if tap not in renamed and not (sys_net / tap).exists())
    if bare:
        found = f"these cards run on ports that are not guarded against spoofing: {', '.join(bare[:10])}"
        action = "their ports are not on their networks' bridges: shut their VMs down and start them again"
        return warning("guarded-ports", found, action)
    if renamed:
        shown = ", ".join(f"{cards[tap]} ({port})" for tap, port in sorted(renamed.items())[:10])
        found = (
            f"every running card is on a port that is guarded; these under another name, until they start anew: {shown}"
        )
        return info("guarded-ports", found)
    return ok("guarded-ports", "every running card is on a port that is guarded")


def check_others(listed: list[dict[str, Any]]) -> Iterator[Finding]:
    """A packet passes where every base chain lets it pass: what another one drops by default, no rule of ours brings back."""
    fights = {
        (chain["hook"], f"{chain['family']} {chain['table']} {chain['name']}")
        for item in listed
        if (chain := item.get("chain")) is not None and not chain["table"].startswith(_OWN_TABLES)
        if chain.get("type") == "filter" and chain.get("policy") == "drop" and chain["family"] != "bridge"
    }
    forward = sorted(name for hook, name in fights if hook == "forward")
    inward = sorted(name for hook, name in fights if hook == "input")
    if forward:
        found = f"{', '.join(forward)} drops what it does not know: guests' packets too, also between two of one bridge"
        action = (
            "let Corral's bridges through there: with Docker, "
            "`iptables -I DOCKER-USER -i crl+ -j ACCEPT` and the same with -o; with ufw, `ufw route allow in on crl…`"
        )
        yield warning("forward-policy", found, action)
    else:
        yield ok("forward-policy", "nobody else drops what is forwarded by default")
    if inward:
        found = f"{', '.join(inward)} drops what it does not know: guests may get no address and no names"
        action = "let in, from interfaces crl+, UDP to the ports 67, 547 and 53, and TCP to 53"
        yield info("input-policy", found, action)
