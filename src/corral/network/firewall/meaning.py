"""What a policy's words mean for one packet: which networks reach one another, which traffic and which addresses are meant. Pure."""

import ipaddress

from corral.network.firewall.policy import ANY_TRAFFIC, HOST_REALM, Net, Protocol, Traffic


def realm_of(net: Net) -> str:
    """Networks that reach one another untranslated. Projects that share the host as their gateway are kept apart."""
    if net.mode == "bridge":
        return f"bridge {net.bridge}"
    return f"{net.realm} {net.project}" if net.realm == HOST_REALM else net.realm


def matches(traffic: Traffic, protocol: Protocol, port: int | None, icmp: tuple[int | None, int | None]) -> bool:
    if traffic == ANY_TRAFFIC or traffic.protocol is Protocol.ANY:
        return True
    if traffic.protocol is not protocol:
        return False
    if traffic.ports is not None and (port is None or not traffic.ports[0] <= port <= traffic.ports[1]):
        return False
    if traffic.icmp_type is not None and traffic.icmp_type != icmp[0]:
        return False
    return traffic.icmp_code is None or traffic.icmp_code == (icmp[1] or 0)


def lies_in(address: str, cidr: str) -> bool:
    found, network = ipaddress.ip_address(address), ipaddress.ip_network(cidr)
    return found.version == network.version and found in network


def is_on(net: Net, address: str) -> bool:
    return any(lies_in(address, subnet) for subnet in net.subnets)
