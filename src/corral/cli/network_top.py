"""`corral network top`: what passes the cards of running VMs, now and lately."""

import sys
import time
from typing import Any, Final

import click

from corral.cli.completion import complete_network
from corral.cli.output import Column, Document, output_option, show_document, table
from corral.cli.session import Session, pass_session
from corral.names import format_bytes, format_rate, parse_duration_s

FIRST_SAMPLE_S: Final = 1.0
_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"


def _rate(key: str, title: str) -> Column:
    return Column(title, lambda item: format_rate(round(item[key])), right=True)


def _packets(key: str, title: str) -> Column:
    return Column(title, lambda item: f"{item[key]:.0f}", right=True)


_TRAFFIC: Final = (
    _rate("received_bytes_per_s", "in"),
    _rate("sent_bytes_per_s", "out"),
    _packets("received_packets_per_s", "packets in/s"),
    _packets("sent_packets_per_s", "out/s"),
    Column("drops", lambda item: item["received_drops"] + item["sent_drops"], right=True),
    Column("errors", lambda item: item["errors"], right=True),
    Column("connections", lambda item: "-" if item["connections"] is None else item["connections"], right=True),
    Column("total in", lambda item: format_bytes(item["received_bytes"]), right=True),
    Column("total out", lambda item: format_bytes(item["sent_bytes"]), right=True),
)
CARDS: Final = (
    Column("vm", lambda item: item["vm"]),
    Column("card", lambda item: item["nic"]),
    Column("network", lambda item: item["network"]),
    Column("address", lambda item: item["address"] or "-"),
    *_TRAFFIC,
)
NETWORKS: Final = (
    Column("network", lambda item: item["name"]),
    Column("cards", lambda item: item["running"], right=True),
    *_TRAFFIC,
)
SORTS: Final = {
    "traffic": lambda item: -(item["received_bytes_per_s"] + item["sent_bytes_per_s"]),
    "packets": lambda item: -(item["received_packets_per_s"] + item["sent_packets_per_s"]),
    "drops": lambda item: -(item["received_drops"] + item["sent_drops"]),
    "connections": lambda item: -(item["connections"] or 0),
    "name": lambda item: (item.get("vm") or item.get("name"), item.get("nic", "")),
}


@click.command()
@click.option("--once", is_flag=True, help="One measurement, then end (virsh: domifstat).")
@click.option(
    "--by", type=click.Choice(["card", "network"]), default="card", show_default=True, help="What is counted."
)
@click.option("--interval", metavar="TIME", default="2s", show_default=True, help="How often to refresh.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="traffic", show_default=True, help="What comes first.")
@click.argument("names", nargs=-1, metavar="[NETWORK]…", shell_complete=complete_network)
@output_option
@pass_session
def top(session: Session, /, once: bool, interval: str, names: tuple[str, ...], output: str, **view: str) -> None:
    """Traffic, packets, drops and connections of the cards of running VMs, refreshed until Ctrl-C.

    \b
    Examples:
      corral network top
      corral network top shop --by network --interval 5s
      corral network top --once -o json
    """
    interval_s = max(0.2, parse_duration_s(interval, "--interval"))
    for name in names:
        session.client().get_network(name)
    report = _report(session, names, view["sort"])
    if not report["interval_s"]:
        time.sleep(min(FIRST_SAMPLE_S, interval_s))
        report = _report(session, names, view["sort"])
    try:
        while True:
            _show(report, view["by"], output, screen=not once)
            if once:
                return
            time.sleep(interval_s)
            report = _report(session, names, view["sort"])
    except KeyboardInterrupt:
        click.echo()


def _report(session: Session, names: tuple[str, ...], sort: str) -> Any:
    report: Any = dict(session.client().network_usage())
    for key, name in (("nics", "network"), ("networks", "name")):
        found = (item for item in report[key] if not names or item[name] in names)
        report[key] = sorted(found, key=SORTS[sort])
    return report


def _show(report: Document, by: str, output: str, *, screen: bool) -> None:
    items, columns = (report["nics"], CARDS) if by == "card" else (report["networks"], NETWORKS)
    if output in ("json", "yaml"):
        show_document(report, output)
    elif output == "name":
        click.echo("\n".join(f"{item['vm']} {item['nic']}" if by == "card" else item["name"] for item in items))
    else:
        lines = table(items, columns)
        if screen and sys.stdout.isatty():
            heading = f"{len(report['nics'])} cards, {report['time'][:19].replace('T', ' ')} UTC; Ctrl-C leaves"
            click.echo(_HOME_AND_CLEAR + "\n".join([heading, "", *lines]))
        else:
            click.echo("\n".join(lines))
    sys.stdout.flush()
