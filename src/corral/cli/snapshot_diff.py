"""`corral snapshot diff`: what was written between two points in time."""

from typing import Final

import click

from corral.cli.completion import complete_snapshot, complete_vm
from corral.cli.output import Column, output_option, show_document, show_list
from corral.cli.session import Session, pass_session
from corral.names import format_bytes

COLUMNS: Final = (
    Column("disk", lambda disk: disk["disk"]),
    Column("size", lambda disk: format_bytes(disk["size_bytes"]), right=True),
    Column("changed", lambda disk: format_bytes(disk["changed_bytes"]), right=True),
    Column("zeros", lambda disk: format_bytes(disk["zero_bytes"]), right=True),
    Column("pieces", lambda disk: str(disk["pieces"]), right=True),
    Column("note", lambda disk: disk.get("note", "")),
)


@click.command()
@click.argument("vm", metavar="VM", shell_complete=complete_vm)
@click.argument("name", metavar="SNAPSHOT", shell_complete=complete_snapshot)
@click.argument("other", metavar="[OTHER]", default="now", shell_complete=complete_snapshot)
@output_option
@pass_session
def diff(session: Session, vm: str, name: str, other: str, output: str) -> None:
    """Show how much was written between a snapshot and another one, or now; -o json tells where.

    \b
    In clusters of 64 KiB, also where the same came again. A guest that runs writes on: what it has written is counted
    when its disk has been told.
    Examples:
      corral snapshot diff web before-upgrade
      corral snapshot diff web monday tuesday
      corral snapshot diff web monday -o json | jq '.disks[].extents'
    """
    found = session.client().diff_snapshots(vm, name, other)
    if output != "table":
        show_document(found, output)
        return
    show_list(list(found["disks"]), COLUMNS, output)
    click.echo(f"together {format_bytes(sum(disk['changed_bytes'] for disk in found['disks']))}")
