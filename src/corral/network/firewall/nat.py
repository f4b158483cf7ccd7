"""Translation of addresses on the host: the way out of `nat` networks, port forwards, floating addresses. Pure."""

from corral.network.firewall import expressions as nft
from corral.network.firewall.form import Chain, Hook, Json, Key, NftSet, encode, rule
from corral.network.firewall.layout import Layout, is4

# nftables' own names for them: dstnat, srcnat.
DSTNAT = -100
SRCNAT = 100
_SERVICE = ("inet_proto", "inet_service")


def nat_chains() -> dict[str, Chain]:
    return {
        # What is bridged in a network that the host does not lead out of is for nobody here, whoever has that address.
        "nat-in": Chain(
            (rule([nft.among(nft.IIF, "shut", "!="), nft.goto("nat-to")]),), Hook("nat", "prerouting", DSTNAT)
        ),
        "nat-local": Chain(
            # What the host sends to itself by its own names stays: with such a source nobody is asked elsewhere.
            (
                rule([nft.match(nft.TO4, nft.prefix("127.0.0.0/8")), nft.RETURN]),
                rule([nft.match(nft.TO6, "::1"), nft.RETURN]),
                rule([nft.goto("nat-to")]),
            ),
            Hook("nat", "output", DSTNAT),
        ),
        "nat-to": Chain(tuple(_to())),
        "nat-out": Chain(tuple(_out()), Hook("nat", "postrouting", SRCNAT)),
    }


def nat_sets(layout: Layout) -> dict[str, NftSet]:
    made: dict[str, NftSet] = {}
    for family, four in (("4", True), ("6", False)):
        address = f"ipv{family}_addr"
        everywhere: dict[Key, str] = {}
        somewhere: dict[Key, str] = {}
        opened: dict[Key, str] = {}
        for forward in layout.policy.forwards:
            if is4(forward.address) == four:
                target = encode({"concat": [forward.address, forward.to_port]})
                opened[forward.address, forward.protocol, forward.to_port] = ""
                if forward.listen:
                    somewhere[forward.listen, forward.protocol, forward.port] = target
                else:
                    everywhere[forward.protocol, forward.port] = target
        floating = [found for found in layout.policy.floating if is4(found.inside) == four]
        subnets: dict[Key, str] = {(subnet,): "" for subnet in layout.translated_subnets(four=four)}
        made |= {
            f"forwarded{family}": NftSet((address, *_SERVICE), opened),
            f"forward{family}": NftSet(_SERVICE, everywhere, (address, "inet_service"), declared=False),
            f"forward-at{family}": NftSet((address, *_SERVICE), somewhere, (address, "inet_service"), declared=False),
            f"float-in{family}": NftSet((address,), {(f.outside,): encode(f.inside) for f in floating}, (address,)),
            f"float-out{family}": NftSet((address,), {(f.inside,): encode(f.outside) for f in floating}, (address,)),
            f"masked{family}": NftSet((address,), subnets, intervals=True),
        }
    return made


def _to() -> list[str]:
    """A connection to one of the host's addresses, to the guest that it stands for."""
    found = []
    service = (nft.L4, nft.DPORT)
    local = nft.match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    for number, family, address in (("4", "ip", nft.TO4), ("6", "ip6", nft.TO6)):
        of_family = nft.match(nft.meta("nfproto"), "ipv4" if number == "4" else "ipv6")
        found += [
            rule([_translate("dnat", family, nft.lookup(nft.concat(address, *service), f"@forward-at{number}"))]),
            rule([of_family, local, _translate("dnat", family, nft.lookup(nft.concat(*service), f"@forward{number}"))]),
            rule([_translate("dnat", family, nft.lookup(address, f"@float-in{number}"))]),
        ]
    return found


def _out() -> list[str]:
    found = []
    for number, family, source, target in (("4", "ip", nft.FROM4, nft.TO4), ("6", "ip6", nft.FROM6, nft.TO6)):
        masked = f"masked{number}"
        found += [
            # To a guest by its neighbour through the host's address: the answer must come back the same way.
            rule([nft.translated(), nft.among(source, masked), nft.among(target, masked), nft.MASQUERADE]),
            rule(
                [
                    nft.among(nft.OIF, "own", "!="),
                    _translate("snat", family, nft.lookup(source, f"@float-out{number}")),
                ]
            ),
            rule([nft.among(source, masked), nft.among(nft.OIF, "own", "!="), nft.MASQUERADE]),
        ]
    return found


def _translate(kind: str, family: str, address: Json) -> Json:
    return {kind: {"family": family, "addr": address}}
