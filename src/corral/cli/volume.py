"""Volumes: disks that stand alone, and those of VMs."""

from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.change import finish_change
from corral.cli.completion import complete_image, complete_pool, complete_vm, complete_volume
from corral.cli.options import async_option
from corral.cli.output import Column, Document, age, output_option, show_list, show_one
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.cli.volume_move import flatten, move
from corral.errors import CorralError
from corral.names import format_bytes, parse_size_bytes

if TYPE_CHECKING:
    from typing import Literal

    from corral.client_types import (
        AttachDiskRequest,
        CopyVolumeRequest,
        CreateVolumeRequest,
        Operation,
        ResizeVolumeRequest,
    )

COLUMNS: Final = (
    Column("name", lambda volume: volume["name"]),
    Column("size", lambda volume: format_bytes(volume["spec"]["size_bytes"]), right=True),
    Column("used", lambda volume: format_bytes(volume["status"]["allocated_bytes"]), right=True),
    Column("ready", lambda volume: volume["status"]["ready"]),
    Column("vm", lambda volume: volume["spec"]["vm_uid"]),
    Column("pool", lambda volume: volume["spec"]["pool"]),
    Column("path", lambda volume: volume["status"]["path"]),
    Column("age", lambda volume: age(volume["created_at"])),
)
_FORMATS: Final = click.Choice(["qcow2", "raw"])
_VOLUME: Final = click.argument("name", metavar="VOLUME", shell_complete=complete_volume)
_FORCE: Final = click.option("--force", is_flag=True, help="Allow more than the free space (thin provisioning).")
_POOL: Final = click.option("--pool", default="", shell_complete=complete_pool, help="Where it lies.")


@click.group()
def volume() -> None:
    """Disks of VMs, and disks that no VM has.

    \b
    Examples:
      corral volume create data --size 20
      corral volume attach data web
      corral volume resize data 40
      corral volume copy data data-2
      corral volume move web-root fast
      corral volume download data data.qcow2
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
        users = _users(session)
        found = [_with_users(item, users.get(item["uid"], [])) for item in found]
    show_list(found, COLUMNS, output)


def _users(session: Session) -> dict[str, list[str]]:
    """By volume, the names of the VMs that have it."""
    users: dict[str, list[str]] = {}
    for vm in session.client().list_vms(fields="name,spec.disks"):
        for disk in vm["spec"]["disks"]:
            if disk["volume_uid"]:
                users.setdefault(disk["volume_uid"], []).append(vm["name"])
    return users


def _with_users(volume: Any, names: list[str]) -> Any:
    """For people the VMs' names in the place of the one's uid."""
    return {**volume, "spec": {**volume["spec"], "vm_uid": ", ".join(sorted(names)) or volume["spec"]["vm_uid"]}}


@volume.command()
@_VOLUME
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
    shown = _with_users(found, _users(session).get(found["uid"], [])) if output == "table" else found
    rows: list[tuple[str, object]] = [("name", found["name"]), ("uid", found["uid"])]
    rows += [(column.title, column.value(shown)) for column in COLUMNS[1:-1]]
    rows += [
        ("format", spec["format"]),
        ("image", spec.get("image_uid")),
        ("image digest", spec.get("image_digest")),
        ("read-only", spec.get("read_only", False)),
        ("shared", spec.get("shared", False)),
        ("goes with its VM", spec["delete_with_vm"]),
        ("created", found["created_at"]),
    ]
    if (share := found["status"].get("merging")) is not None:
        rows.append(("merging", f"a layer that nobody needs any more, {share:.0%}"))
    show_one(found, rows, output)


@volume.command()
@click.argument("name")
@click.option("--size", default="", metavar="SIZE", help="A bare number is GiB.  [default: what it is made from]")
@click.option("--from-image", "image", default="", shell_complete=complete_image, help="An overlay on this image.")
@click.option("--format", "format_", type=_FORMATS, help="[default: qcow2]")
@_POOL
@click.option("--read-only", is_flag=True, help="No guest may ever write it.")
@click.option("--shared", is_flag=True, help="Several VMs may have it at once: --format raw, or --read-only.")
@_FORCE
@async_option
@output_option
@pass_session
def create(session: Session, /, name: str, asynchronous: bool, output: str, **given: Any) -> None:
    """Make a volume that stands alone until a VM takes it (virsh: vol-create-as).

    \b
    Examples:
      corral volume create data --size 20
      corral volume create root2 --from-image debian-12
      corral volume create cluster --size 10 --format raw --shared
      corral create db --image debian-12 --disk volume=data
    """
    body: CreateVolumeRequest = {"name": name}
    if size := given.pop("size"):
        body["size_bytes"] = _size(size)
    if format_ := given.pop("format_"):
        body["format"] = format_
    body.update({key: value for key, value in given.items() if value})  # type: ignore[typeddict-item]
    finish(
        session,
        (name,),
        lambda _name: session.client().create_volume(body)["operation"],
        output=output,
        done="made",
        asynchronous=asynchronous,
    )


def _size(text: str) -> int:
    return parse_size_bytes(text, "g", "volume")


@volume.command()
@_VOLUME
@click.argument("size")
@click.option("--shrink", is_flag=True, help="Allow less, where it is proven that nothing lies beyond.")
@_FORCE
@async_option
@output_option
@pass_session
def resize(session: Session, name: str, size: str, shrink: bool, force: bool, asynchronous: bool, output: str) -> None:
    """Grow a volume, also while a VM runs with it, or shrink one that no VM has (virsh: vol-resize). A bare number is
    GiB; +10 adds.

    \b
    Examples:
      corral volume resize data 40
      corral volume resize data +10G
      corral volume resize data 5 --shrink
    """
    size_bytes = _size(size.removeprefix("+"))
    if size.startswith("+"):
        size_bytes += session.client().get_volume(name)["spec"]["size_bytes"]
    body: ResizeVolumeRequest = {"size_bytes": size_bytes, "shrink": shrink, "force": force}
    finish(
        session,
        (name,),
        lambda _name: session.client().resize_volume(name, body)["operation"],
        output=output,
        done=f"has {format_bytes(size_bytes)}",
        asynchronous=asynchronous,
    )


@volume.command()
@_VOLUME
@click.argument("vm", shell_complete=complete_vm)
@click.option("--name", "disk", default="", help="The disk's name in the VM.  [default: disk0, disk1 …]")
@click.option("--bus", type=click.Choice(["virtio", "scsi", "sata"]), help="[default: virtio]")
@click.option("--read-only", is_flag=True, help="The guest may not write it.")
@async_option
@output_option
@pass_session
def attach(session: Session, /, name: str, vm: str, asynchronous: bool, output: str, **given: Any) -> None:
    """Give a volume to a VM, also while it runs (virsh: attach-disk). It outlives the VM.

    \b
    Examples:
      corral volume attach data web
      corral volume attach data web --name data --bus scsi
    """
    body: AttachDiskRequest = {"volume": name}
    given["name"] = given.pop("disk")
    body.update({key: value for key, value in given.items() if value})  # type: ignore[typeddict-item]
    finish_change(
        session,
        (vm,),
        lambda found: session.client().attach_disk(found, body),
        f"has volume {name}",
        output,
        asynchronous,
    )


@volume.command()
@_VOLUME
@click.argument("vm", required=False, default="", shell_complete=complete_vm)
@async_option
@output_option
@pass_session
def detach(session: Session, name: str, vm: str, asynchronous: bool, output: str) -> None:
    """Take a volume out of its VM, also while it runs; it is kept (virsh: detach-disk).

    \b
    Examples:
      corral volume detach data
      corral volume detach shared-iso web
    """
    client = session.client()
    uid = client.get_volume(name)["uid"]
    found = [
        (owner["name"], disk["name"])
        for owner in client.list_vms(fields="name,spec.disks")
        for disk in owner["spec"]["disks"]
        if disk["volume_uid"] == uid and vm in ("", owner["name"])
    ]
    if len(found) != 1:
        names = ", ".join(sorted(owner for owner, _ in found))
        reason = f"several VMs have it: {names}" if found else f"{'VM ' + vm if vm else 'no VM'} has it"
        raise CorralError(
            "device-not-found" if not found else "invalid-argument",
            f"detach volume {name!r}",
            reason if found or not vm else f"VM {vm} does not have it",
            "corral volume list shows who has which",
        )
    owner, disk = found[0]
    finish_change(
        session, (owner,), lambda _vm: client.detach_disk(owner, disk), f"gave volume {name} back", output, asynchronous
    )


@volume.command()
@_VOLUME
@click.argument("new")
@click.option("--format", "format_", type=_FORMATS, help="[default: the original's]")
@_POOL
@_FORCE
@async_option
@output_option
@pass_session
def copy(
    session: Session,
    name: str,
    new: str,
    format_: "Literal['qcow2', 'raw'] | None",
    pool: str,
    force: bool,
    asynchronous: bool,
    output: str,
) -> None:
    """Copy a volume that nobody writes now: all of it, leaning on nothing (virsh: vol-clone).

    \b
    Examples:
      corral volume copy data data-2
      corral volume copy data data-raw --format raw
    """
    body: CopyVolumeRequest = {"name": new, "force": force}
    if format_:
        body["format"] = format_
    if pool:
        body["pool"] = pool

    def request(_name: str) -> "Operation":
        return session.client().copy_volume(name, body)["operation"]

    finish(session, (new,), request, output=output, done="copied", asynchronous=asynchronous)


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


@volume.command()
@click.argument("file")
@click.argument("name")
@click.option("--format", "format_", type=_FORMATS, help="The file's.  [default: by its ending, .qcow2 or .raw]")
@click.option("--to", "to", type=_FORMATS, help="The volume's.  [default: qcow2]")
@click.option("--size", default="", metavar="SIZE", help="At least the disk's own, which is the default.")
@_POOL
@_FORCE
@async_option
@output_option
@pass_session
def upload(session: Session, /, file: str, name: str, asynchronous: bool, output: str, **given: Any) -> None:
    """Make a volume of a disk file of yours; it is sent, checked, and copied (virsh: vol-upload).

    \b
    Examples:
      corral volume upload old.qcow2 old
      corral volume upload disk.img old --format raw --size 40
    """
    from corral.cli.volume_files import send_file, told_format

    body: CreateVolumeRequest = {"name": name, "upload_format": told_format(file, given["format_"])}
    if given["to"]:
        body["format"] = given["to"]
    if given["size"]:
        body["size_bytes"] = _size(given["size"])
    body.update({key: given[key] for key in ("pool", "force") if given[key]})  # type: ignore[typeddict-item]

    def request(_name: str) -> "Operation":
        body["upload"] = send_file(session, file)
        return session.client().create_volume(body)["operation"]

    finish(session, (name,), request, output=output, done="uploaded", asynchronous=asynchronous)


@volume.command()
@_VOLUME
@click.argument("file")
@click.option("--format", "format_", type=_FORMATS, help="[default: by the file's ending, else qcow2]")
@pass_session
def download(session: Session, name: str, file: str, format_: "Literal['qcow2', 'raw'] | None") -> None:
    """Save a volume as a file of yours that leans on nothing; - is standard output (virsh: vol-download). Its VM is
    off meanwhile.

    \b
    Examples:
      corral volume download data data.qcow2
      corral volume download data - --format raw | gzip > data.raw.gz
    """
    from corral.cli.volume_files import save_file

    save_file(session, name, file, format_ or ("raw" if file.endswith(".raw") else "qcow2"))


volume.add_command(move)
volume.add_command(flatten)
