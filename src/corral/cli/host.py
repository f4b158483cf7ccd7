"""This server: info, list."""

from typing import Any, Final

import click

from corral.cli.host_network import network
from corral.cli.output import Column, Document, mebibytes, output_option, show_list, show_one
from corral.cli.session import Session, pass_session
from corral.names import format_bytes

COLUMNS: Final = (
    Column("name", lambda host: host["name"]),
    Column("accelerator", lambda host: host["status"]["accelerator"]),
    Column("cpus", lambda host: host["status"]["cpus"], right=True),
    Column("memory", lambda host: mebibytes(host["status"]["memory_mib"]), right=True),
    Column("running", lambda host: host["status"]["vms_running"], right=True),
    Column("connected", lambda host: host["status"]["hypervisor_connected"]),
)


@click.group()
def host() -> None:
    """Servers that run VMs.

    \b
    Examples:
      corral host info
    """


host.add_command(network)


@host.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the hosts.

    \b
    Examples:
      corral host list
    """
    show_list(session.client().list_hosts(), COLUMNS, output)


@host.command()
@click.argument("name", metavar="[HOST]", default="self")
@output_option
@pass_session
def info(session: Session, name: str, output: str) -> None:
    """Show a host: accelerator and why, versions, what is promised of what is there, and what it cannot do (virsh: nodeinfo).

    \b
    Examples:
      corral host info
      corral host info -o json
    """
    found: Document = session.client().get_host(name)
    status = found["status"]
    accelerators = [
        f"{item['name']}: {'usable' if item['usable'] else 'not usable'}, {item['reason']}"
        for item in status.get("accelerators", ())
    ]
    rows: list[tuple[str, object]] = [
        ("name", found["name"]),
        ("uid", found["uid"]),
        ("accelerator", status["accelerator"] or "not measured yet"),
        ("measured", accelerators),
        ("cpu", f"{status['cpus']} x {status['cpu_model']}"),
        ("memory", mebibytes(status["memory_mib"])),
        ("committed cpu", f"{status['committed_vcpus']} of {status['vcpu_limit']} vcpus"),
        (
            "committed memory",
            [
                f"{mebibytes(status['committed_memory_mib'])} of {mebibytes(status['memory_limit_mib'])}",
                *_of_templates(status),
            ],
        ),
        ("disk", f"{format_bytes(status['disk_free_bytes'])} free of {format_bytes(status['disk_total_bytes'])}"),
        ("running VMs", status["vms_running"]),
        ("system", status["os"]),
        ("kernel", status["kernel"]),
        ("libvirt", f"{status['libvirt_version']} ({'' if status['hypervisor_connected'] else 'not '}connected)"),
        ("qemu", status["qemu_version"]),
        ("conditions", [f"{item['type']}: {item['status']} ({item['reason']})" for item in status["conditions"]]),
    ]
    if output == "table":
        answer: Any = session.client().request("GET", "/v1/host/incapabilities")
        rows.append(("cannot", [f"{item['what']}: {item['reason']}" for item in answer["items"]]))
    show_one(found, rows, output)


def _of_templates(status: Document) -> list[str]:
    """How VMs that share memory are counted."""
    forks, held = status.get("forks_memory_mib", 0), status.get("templates_memory_mib", 0)
    if not forks and not held:
        return []
    return [
        f"{mebibytes(forks)} of that for VMs of templates: all of their memory, since they may come to write it all",
        f"{mebibytes(held)} of that for the templates' own, held once for all VMs of each",
    ]
