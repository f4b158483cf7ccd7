"""`corral top`: CPU, memory, disk and network of the running VMs, now and lately."""

import sys
import time
from typing import Any, Final

import click

from corral.cli.completion import complete_vm
from corral.cli.output import Column, Document, output_option, show_document, table
from corral.cli.session import Session, pass_session
from corral.names import format_bytes, parse_duration_s

# A request samples the counters; two of them, this far apart, make the first rates.
FIRST_SAMPLE_S: Final = 1.0
_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"


def _rate(key: str) -> Column:
    titles = {
        "disk_read_bytes_per_s": "disk read",
        "disk_written_bytes_per_s": "written",
        "net_received_bytes_per_s": "net in",
        "net_sent_bytes_per_s": "net out",
    }
    return Column(titles[key], lambda usage: f"{format_bytes(round(usage[key]))}/s", right=True)


def _bytes(count: int | None) -> str:
    """Told of VMs of templates alone: others share next to nothing."""
    return "-" if count is None else format_bytes(count)


COLUMNS: Final = (
    Column("name", lambda usage: usage["name"]),
    Column("cpu %", lambda usage: f"{usage['cpu_percent']:.1f}", right=True),
    Column("vcpus", lambda usage: usage["vcpus"], right=True),
    Column("memory", lambda usage: format_bytes(usage["memory_mib"] * 2**20), right=True),
    Column("resident", lambda usage: format_bytes(usage["memory_rss_bytes"]), right=True),
    Column("shared", lambda usage: _bytes(usage.get("memory_shared_bytes")), right=True),
    Column("saved", lambda usage: _bytes(usage.get("memory_saved_bytes")), right=True),
    _rate("disk_read_bytes_per_s"),
    _rate("disk_written_bytes_per_s"),
    _rate("net_received_bytes_per_s"),
    _rate("net_sent_bytes_per_s"),
    Column("cpu time", lambda usage: f"{usage['cpu_time_ns'] / 1e9:.0f}s", right=True),
)

SORTS: Final = {
    "name": lambda usage: usage["name"],
    "cpu": lambda usage: -usage["cpu_percent"],
    "memory": lambda usage: -usage["memory_rss_bytes"],
    "disk": lambda usage: -(usage["disk_read_bytes_per_s"] + usage["disk_written_bytes_per_s"]),
    "net": lambda usage: -(usage["net_received_bytes_per_s"] + usage["net_sent_bytes_per_s"]),
}


@click.command()
@click.option("--once", is_flag=True, help="One measurement, then end (virsh: domstats).")
@click.option("--interval", metavar="TIME", default="2s", show_default=True, help="How often to refresh.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="cpu", show_default=True, help="What comes first.")
@click.argument("names", nargs=-1, metavar="[VM]…", shell_complete=complete_vm)
@output_option
@pass_session
def top(session: Session, once: bool, interval: str, sort: str, names: tuple[str, ...], output: str) -> None:
    """CPU (100 is one host CPU), memory, disk and network of the running VMs, refreshed until Ctrl-C.

    \b
    `shared`: of the resident memory of a VM made of a template, what it has in common with others; `saved`: how much more it
    would take if it shared nothing.
    Examples:
      corral top
      corral top web db --interval 5s --sort disk
      corral top --once -o json
    """
    interval_s = max(0.2, parse_duration_s(interval, "--interval"))
    for name in names:  # one that is off is not measured; one that is not there is said
        session.client().get_vm(name)
    report = _report(session, names, sort)
    if any(not item["interval_s"] for item in report["items"]):
        time.sleep(min(FIRST_SAMPLE_S, interval_s))
        report = _report(session, names, sort)
    try:
        while True:
            _show(report, output, screen=not once)
            if once:
                return
            time.sleep(interval_s)
            report = _report(session, names, sort)
    except KeyboardInterrupt:
        click.echo()


def _report(session: Session, names: tuple[str, ...], sort: str) -> Any:
    report: Any = dict(session.client().usage())
    report["items"] = sorted((item for item in report["items"] if not names or item["name"] in names), key=SORTS[sort])
    return report


def _show(report: Document, output: str, *, screen: bool) -> None:
    items = report["items"]
    if output in ("json", "yaml"):
        show_document(report, output)
    elif output == "name":
        click.echo("\n".join(item["name"] for item in items))
    else:
        lines = table(items, COLUMNS)
        if screen and sys.stdout.isatty():
            total = sum(item["cpu_percent"] for item in items)
            heading = (
                f"{len(items)} running, CPU {total:.0f} %, {report['time'][:19].replace('T', ' ')} UTC; Ctrl-C leaves"
            )
            click.echo(_HOME_AND_CLEAR + "\n".join([heading, "", *lines]))
        else:
            click.echo("\n".join(lines))
    sys.stdout.flush()
