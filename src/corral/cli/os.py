"""Operating systems: what Corral knows of them."""

from typing import Any, Final

import click

from corral.cli.output import Column, output_option, show_list, show_one
from corral.cli.session import Session, pass_session

COLUMNS: Final = (
    Column("id", lambda system: system["id"]),
    Column("name", lambda system: system["name"]),
    Column("firmware", lambda system: system["firmware"]),
    Column("disk", lambda system: system["disk_bus"]),
    Column("network", lambda system: system["nic_model"]),
    Column("memory", lambda system: f"{system['memory_min_mib']}M" if system["memory_min_mib"] else "-", right=True),
    Column("unattended", lambda system: system["unattended"] or "-"),
)


@click.group("os")
def os_() -> None:
    """Operating systems: what a VM is given where you leave it open.

    \b
    Examples:
      corral os list
      corral os show win11
    """


@os_.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that only osinfo-db knows.")
@output_option
@pass_session
def list_(session: Session, everything: bool, output: str) -> None:
    """List the systems that --os-variant takes.

    \b
    Examples:
      corral os list
      corral os list --all | grep suse
    """
    query = {"all": "true"} if everything else {}
    answer: Any = session.client().request("GET", "/v1/os", query=query)
    show_list(answer["items"], COLUMNS, output, name=lambda system: str(system["id"]))


@os_.command()
@click.argument("name", metavar="OS")
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show what is known of a system.

    \b
    Examples:
      corral os show ubuntu22.04
    """
    from urllib.parse import quote

    found: Any = session.client().request("GET", f"/v1/os/{quote(name, safe='')}")
    rows: list[tuple[str, object]] = [
        ("id", found["id"]),
        ("name", found["name"]),
        ("also", ", ".join(found.get("aliases", ()))),
        ("family", found["family"]),
        ("known from", found["source"]),
        ("firmware", found["firmware"] + (" with secure boot" if found.get("secure_boot") else "")),
        ("TPM", found.get("tpm")),
        ("disks", found["disk_bus"]),
        ("cards", found["nic_model"]),
        ("video", found["video"]),
        ("clock", found["clock"]),
        ("Hyper-V", found["hyperv"]),
        ("generation id", found["vmgenid"]),
        ("pointer", found["tablet"]),
        ("least vCPUs", found["vcpus_min"]),
        ("least memory", f"{found['memory_min_mib']}M" if found["memory_min_mib"] else "not known"),
        ("disk", f"{found['disk_gib']}G"),
        ("unattended by", found["unattended"]),
        ("drivers ISO", "virtio-win, for virtio disks and cards" if found["drivers_iso"] else ""),
    ]
    show_one(found, rows, output)
