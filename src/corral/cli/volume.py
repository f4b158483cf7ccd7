"""Volumes, the disks of VMs: list, show, delete."""

from typing import Any, Final

import click

from corral.cli.completion import complete_volume
from corral.cli.options import async_option
from corral.cli.output import Column, Document, age, output_option, show_list, show_one
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.names import format_bytes

COLUMNS: Final = (
    Column("name", lambda volume: volume["name"]),
    Column("size", lambda volume: format_bytes(volume["spec"]["size_bytes"]), right=True),
    Column("used", lambda volume: format_bytes(volume["status"]["allocated_bytes"]), right=True),
    Column("ready", lambda volume: volume["status"]["ready"]),
    Column("vm", lambda volume: volume["spec"]["vm_uid"]),
    Column("path", lambda volume: volume["status"]["path"]),
    Column("age", lambda volume: age(volume["created_at"])),
)


@click.group()
def volume() -> None:
    """Disks of VMs.

    \b
    Examples:
      corral volume list
      corral volume delete web-root-5d2e8c1a
    """


@volume.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the volumes, those kept by `delete --keep-disks` too (virsh: vol-list).

    \b
    Examples:
      corral volume list
      corral volume list -o json
    """
    found: list[Any] = list(session.client().list_volumes())
    if output == "table":
        # For people the VM's name in the place of its uid.
        names = {vm["uid"]: vm["name"] for vm in session.client().list_vms(fields="uid,name")}
        found = [
            {**item, "spec": {**item["spec"], "vm_uid": names.get(item["spec"]["vm_uid"], item["spec"]["vm_uid"])}}
            for item in found
        ]
    show_list(found, COLUMNS, output)


@volume.command()
@click.argument("name", metavar="VOLUME", shell_complete=complete_volume)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show a volume (virsh: vol-info).

    \b
    Examples:
      corral volume show web-root
    """
    found: Document = session.client().get_volume(name)
    spec = found["spec"]
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [(column.title, column.value(found)) for column in COLUMNS[1:-1]]
    rows += [
        ("format", spec["format"]),
        ("image", spec.get("image_uid")),
        ("image digest", spec.get("image_digest")),
        ("goes with its VM", spec["delete_with_vm"]),
        ("created", found["created_at"]),
    ]
    show_one(found, rows, output)


@volume.command()
@click.argument("names", nargs=-1, required=True, metavar="VOLUME…", shell_complete=complete_volume)
@click.option("-y", "--yes", is_flag=True, help="Accepted for scripts; nothing is asked.")
@async_option
@output_option
@pass_session
def delete(session: Session, names: tuple[str, ...], yes: bool, asynchronous: bool, output: str) -> None:
    """Delete volumes that no VM has, by name or uid (virsh: vol-delete).

    \b
    Examples:
      corral volume delete web-root-5d2e8c1a
    """
    del yes
    finish(
        session,
        names,
        lambda name: session.client().delete_volume(name)["operation"],
        output=output,
        done="deleted",
        asynchronous=asynchronous,
    )
