"""A bridge under netplan (netplan(5)): in the file that has the card, its addresses move to the bridge. Pure."""

from typing import Any, Final

import yaml

from corral.host.bridging.network_manager import settings_kept
from corral.host.bridging.networkd import COMMENT, RESTART, keeps_identity, netplan_drop_in
from corral.host.bridging.plan import (
    SECRET_MODE,
    Command,
    Facts,
    FileChange,
    Manager,
    Plan,
    TextFile,
    Wish,
    keeps_cloud_init_away,
    refuse,
    written,
)
from corral.host.bridging.sections import Section, write_sections

# Of the card itself; everything else is about addresses, and moves.
_OF_THE_CARD: Final = frozenset(
    {
        "match",
        "set-name",
        "wakeonlan",
        "macaddress",
        "mtu",
        "auth",
        "optional",
        "emit-lldp",
        "receive-checksum-offload",
        "transmit-checksum-offload",
        "tcp-segmentation-offload",
        "tcp6-segmentation-offload",
        "generic-segmentation-offload",
        "generic-receive-offload",
        "large-receive-offload",
        "virtual-function-count",
        "embedded-switch-mode",
        "delay-virtual-functions-rebind",
        "infiniband-mode",
        "openvswitch",
        "renderer",
        "ignore-carrier",
        "activation-mode",
    }
)
_OVER_CARDS: Final = {
    "bridges": "interfaces",
    "bonds": "interfaces",
    "vlans": "link",
    "tunnels": "link",
    "vrfs": "interfaces",
}


def claims(files: tuple[TextFile, ...], nic: str, mac: str) -> bool:
    return any(_id_in(_network(file), nic, mac) for file in files)


def plan_netplan(facts: Facts, wish: Wish) -> Plan:
    """Raises `unsupported` for what only a person can decide about."""
    found = [(file, name) for file in facts.netplan if (name := _id_in(_network(file), wish.nic, wish.mac))]
    by_hand = f"write the bridge into {found[0][0].path} yourself, then: netplan try"
    if len(found) > 1:
        raise refuse(wish, f"{found[0][0].path} and {found[1][0].path} both have {wish.nic}", by_hand)
    [(file, name)] = found
    if len(facts.networkd) > 1:
        added = facts.networkd[1].path
        raise refuse(wish, f"{added} adds to what netplan says of {wish.nic}", f"move it to {file.path}, or {by_hand}")
    for other in facts.netplan:
        _check(_network(other), other.path, name, wish, by_hand)
    document = yaml.safe_load(file.text)
    network = document["network"]
    card = dict(network["ethernets"][name] or {})
    moved = {key: value for key, value in card.items() if key not in _OF_THE_CARD}
    stays = {key: value for key, value in card.items() if key in _OF_THE_CARD}
    network["ethernets"][name] = {**stays, "dhcp4": False, "dhcp6": False}
    bridge = {"interfaces": [name], "macaddress": card.get("macaddress", wish.mac), "parameters": {"stp": False}}
    if "mtu" in card:
        bridge["mtu"] = card["mtu"]
    bridge |= moved | _for_network_manager(facts, moved)
    network["bridges"] = {**(network.get("bridges") or {}), wish.bridge: bridge}
    text = str(yaml.safe_dump(document, sort_keys=False, default_flow_style=False, allow_unicode=True))
    apply = Command(("netplan", "apply"))
    return Plan(
        manager=Manager.NETPLAN,
        nic=wish.nic,
        bridge=wish.bridge,
        files=(
            FileChange(file.path, file.text, text, SECRET_MODE),
            *_for_networkd(facts, wish),
            *keeps_cloud_init_away(facts, file.path),
        ),
        after=(Command(("netplan", "generate")), apply),
        undo_after=(
            Command(("netplan", "generate")),
            apply,
            # Not before: NetworkManager would make it again, and systemd-networkd give the card up.
            Command(("ip", "link", "del", "dev", wish.bridge), needed=False),
        ),
        # It tells systemd-networkd to configure a card that this one configures already, by which an address may be lost.
        undo_again=(RESTART,) if facts.networkd else (apply,),
        notes=(f"comments in {file.path} are lost",) if "#" in file.text else (),
    )


def _for_networkd(facts: Facts, wish: Wish) -> tuple[FileChange, ...]:
    """netplan has no words for it."""
    sections = keeps_identity(facts)
    if not facts.networkd or not sections:
        return ()
    return (written(facts, netplan_drop_in(wish.bridge), write_sections(sections, COMMENT), own_directory=True),)


def _for_network_manager(facts: Facts, moved: dict[str, Any]) -> dict[str, Any]:
    """Where it is the one that netplan writes for: it alone has a metric of its own for each kind of card."""
    if not facts.identity.route_metric:
        return {}
    said = []
    for version in "46":
        overrides = moved.get(f"dhcp{version}-overrides")
        metric = overrides.get("route-metric") if isinstance(overrides, dict) else None
        said.append(Section(f"ipv{version}", () if metric is None else (("route-metric", str(metric)),)))
    kept = {f"{section.name}.{key}": value for section in settings_kept(facts, said) for key, value in section.entries}
    return {"networkmanager": {"passthrough": kept}} if kept else {}


def _network(file: TextFile) -> dict[str, Any]:
    """Empty where the file says nothing that netplan would take."""
    try:
        document = yaml.safe_load(file.text)
    except yaml.YAMLError:
        return {}
    network = document.get("network") if isinstance(document, dict) else None
    return network if isinstance(network, dict) else {}


def _id_in(network: dict[str, Any], nic: str, mac: str) -> str:
    """The name that the file knows the card by; empty where it does not."""
    ethernets = network.get("ethernets")
    for name, card in ethernets.items() if isinstance(ethernets, dict) else ():
        match = card.get("match") if isinstance(card, dict) else None
        if isinstance(match, dict):
            if str(match.get("macaddress", "")).lower() == mac or nic in (match.get("name"), card.get("set-name")):
                return str(name)
        elif name == nic:
            return str(name)
    return ""


def _check(network: dict[str, Any], path: str, name: str, wish: Wish, by_hand: str) -> None:
    for kind, key in _OVER_CARDS.items():
        found = network.get(kind)
        for other, settings in found.items() if isinstance(found, dict) else ():
            if other == wish.bridge:
                raise refuse(wish, f"{path} has {wish.bridge} already", "choose another name: --name br1")
            value = settings.get(key) if isinstance(settings, dict) else None
            if name in (value if isinstance(value, list) else [value]):
                raise refuse(wish, f"{path} puts {other} ({kind}) on {wish.nic}", by_hand)
