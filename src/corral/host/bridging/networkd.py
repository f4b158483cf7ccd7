"""A bridge under systemd-networkd (systemd.network(5), systemd.netdev(5)): three files that come before the card's own. Pure."""

from pathlib import PurePath
from typing import Final

from corral.host.bridging.plan import Command, Facts, Manager, Plan, Wish, refuse, written
from corral.host.bridging.sections import Section, first, read_sections, write_sections

DIRECTORY: Final = "/etc/systemd/network"
COMMENT: Final = "Made by Corral: corral host network bridge"
# What hangs on the card itself, and would have to move with a thought.
_HANGING: Final = ("Bridge", "Bond", "VLAN", "MACVLAN", "MACVTAP", "IPVLAN", "VRF", "VXLAN", "Tunnel")
RESTART: Final = Command(("systemctl", "restart", "systemd-networkd"))
# Of the card, not of its addresses.
_OF_THE_CARD: Final = ("Match", "Link")


def netplan_drop_in(bridge: str) -> str:
    """Beside the file that netplan writes for a bridge."""
    return f"{DIRECTORY}/10-netplan-{bridge}.network.d/corral.conf"


def keeps_identity(facts: Facts) -> tuple[Section, ...]:
    """To a DHCP server the bridge is who the card was, and gets the same addresses."""
    sections = [section for file in facts.networkd for section in read_sections(file.text)]
    known = (("DHCPv4", facts.identity.iaid_v4), ("DHCPv6", facts.identity.iaid_v6))
    return tuple(Section(name, (("IAID", iaid),)) for name, iaid in known if iaid and not first(sections, name, "IAID"))


def plan_networkd(facts: Facts, wish: Wish) -> Plan:
    """Raises `unsupported` for what only a person can decide about."""
    main = facts.networkd[0]
    sections = [section for file in facts.networkd for section in read_sections(file.text)]
    for section in sections:
        for key in _HANGING:
            if section.name == "Network" and section.values(key):
                reason = f"{main.path} has {key}= on {wish.nic}"
                raise refuse(wish, reason, f"make {wish.bridge} by hand: man systemd.netdev")
    stem = f"00-corral-{wish.bridge}"
    if PurePath(main.path).name <= f"{stem}.network":
        raise refuse(wish, f"{main.path} is read before anything of Corral's", "rename it: 10-…")
    port = Section("Match", (("Name", wish.nic), ("Type", "ether")))
    link = [section for section in sections if section.name == "Link"]
    addresses = [section for section in sections if section.name not in _OF_THE_CARD]
    files = (
        written(
            facts,
            f"{DIRECTORY}/{stem}.netdev",
            write_sections(
                (
                    Section("NetDev", (("Name", wish.bridge), ("Kind", "bridge"), ("MACAddress", wish.mac))),
                    Section("Bridge", (("STP", "no"), ("ForwardDelaySec", "0"))),
                ),
                COMMENT,
            ),
        ),
        written(
            facts,
            f"{DIRECTORY}/{stem}-port.network",
            write_sections((port, *link, Section("Network", (("Bridge", wish.bridge),))), COMMENT),
        ),
        written(
            facts,
            f"{DIRECTORY}/{stem}.network",
            write_sections(
                (Section("Match", (("Name", wish.bridge),)), *addresses, *keeps_identity(facts)),
                f"{COMMENT}; addresses of {main.path}",
            ),
        ),
    )
    reload = Command(("networkctl", "reload"))
    return Plan(
        manager=Manager.NETWORKD,
        nic=wish.nic,
        bridge=wish.bridge,
        files=files,
        # It configures a card anew whose files are others. Told so once more in the middle of that (252) it may lose an
        # address, and it gives a card up (255) whose bridge goes before it has read that it is to be in none.
        after=(reload,),
        undo_after=(reload, Command(("ip", "link", "del", "dev", wish.bridge), needed=False)),
        undo_again=(RESTART,),
        notes=(f"{main.path} stays as it is: what goes before it wins",),
    )
