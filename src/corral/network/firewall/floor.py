"""What remains when the keeper is gone: nothing passes that its tables have not checked. Pure."""

from corral.network.firewall import expressions as nft
from corral.network.firewall.form import Chain, Hook, NftSet, Table, rule
from corral.network.firewall.guard import card_sets
from corral.network.firewall.layout import BRIDGE_LATE, GUARD_MASK, POLICY_MASK, Ident, Layout


def floor_tables(layout: Layout, ident: Ident) -> tuple[Table, Table]:
    """Lets nothing by that was not checked by the tables above: what remains when they are gone."""
    mark = nft.meta("mark")
    unguarded = nft.masked(mark, GUARD_MASK, ident.guarded, "!=")
    unjudged = nft.masked(mark, POLICY_MASK, ident.judged, "!=")
    behind = ident.priority + 1
    taps = {"taps": card_sets(layout.cards)["taps"]}
    own = {"own": NftSet(("ifname",), {(net.bridge,): "" for net in layout.own})}
    packets = nft.one_of(nft.field("ether", "type"), ("ip", "ip6"))
    drop = [nft.COUNTER, nft.DROP]
    bridge = {
        "in": Chain((rule([unguarded, nft.among(nft.IIF, "taps"), *drop]),), Hook("filter", "prerouting", behind)),
        "across": Chain(
            # To a guest, and from one: past a bridge of the host's there are others.
            tuple(rule([packets, unjudged, nft.among(way, "taps"), *drop]) for way in (nft.OIF, nft.IIF)),
            Hook("filter", "forward", behind + BRIDGE_LATE),
        ),
    }
    inet = {
        "forward": Chain(
            tuple(rule([unjudged, nft.among(way, "own"), *drop]) for way in (nft.IIF, nft.OIF)),
            Hook("filter", "forward", behind),
        )
    }
    return Table("bridge", ident.floor, False, bridge, taps), Table("inet", ident.floor, False, inet, own)
