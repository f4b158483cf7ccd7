"""HAProxy's configuration of one router's balancers. Pure; made of checked values alone."""

from collections.abc import Iterator

from corral.network.router import BalancerWish, RouterWish


def build_config(wish: RouterWish, stats_socket: str) -> bytes:
    """Names in it are VMs' and balancers' (DNS labels), addresses, numbers and a path of unreserved characters."""
    lines = [
        "global",
        "    maxconn 4096",
        "    hard-stop-after 60s",
        "    user haproxy",
        "    group haproxy",
        f"    stats socket {stats_socket} mode 600 level operator",
        "    stats timeout 5s",
        "defaults",
        "    timeout connect 5s",
        "    timeout client 60s",
        "    timeout server 60s",
        "    timeout tunnel 1h",
        "    timeout http-request 10s",
        "    timeout check 2s",
        "    default-server inter 2s fall 2 rise 1 on-marked-down shutdown-sessions",
    ]
    for balancer in wish.balancers:
        lines += _listen(balancer)
    return "".join(f"{line}\n" for line in lines).encode()


def _listen(balancer: BalancerWish) -> Iterator[str]:
    yield f"listen {balancer.name}"
    yield f"    mode {balancer.mode}"
    yield f"    bind :{balancer.listen}"
    yield f"    balance {balancer.algorithm}"
    if balancer.mode == "http":
        yield "    option forwardfor"
    if balancer.check_path:
        yield "    option httpchk"
        yield f"    http-check send meth GET uri {balancer.check_path} ver HTTP/1.1 hdr Host {balancer.name}"
        yield "    http-check expect status 200-399"
    for server in balancer.servers:
        yield (f"    server {server.name} {server.address}:{balancer.port} check inter {balancer.check_interval_s}s")
