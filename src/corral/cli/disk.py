"""`corral disk`: disks and drives of a VM that is there, also while it runs."""

from typing import TYPE_CHECKING, Any, Final, cast

import click

from corral.cli.change import finish_change
from corral.cli.completion import complete_device, complete_image, complete_vm
from corral.cli.options import async_option
from corral.cli.output import Column, output_option, show_list
from corral.cli.progress import wait_for
from corral.cli.session import Session, pass_session
from corral.errors import CorralError
from corral.names import format_bytes, parse_size_bytes

if TYPE_CHECKING:
    from corral.client_types import AttachDiskRequest, ChangeDiskRequest

COLUMNS: Final = (
    Column("name", lambda disk: disk["name"]),
    Column("kind", lambda disk: disk.get("device", "disk")),
    Column("bus", lambda disk: disk["bus"]),
    Column("size", lambda disk: disk["size"], right=True),
    Column("where", lambda disk: disk["where"]),
)

_NAME: Final = click.argument("name", metavar="VM", shell_complete=complete_vm)
_DISK: Final = click.argument("disk", metavar="DISK", shell_complete=complete_device("disks"))


@click.group()
def disk() -> None:
    """Disks and drives of a VM. What a running guest cannot have at once, it has at its next start; that is said.

    \b
    Examples:
      corral disk add web size=20
      corral disk resize web data 40G
      corral disk insert desk cd0 virtio-win.iso
      corral disk remove web data
    """


@disk.command("list")
@_NAME
@output_option
@pass_session
def list_(session: Session, name: str, output: str) -> None:
    """List a VM's disks and drives (virsh: domblklist).

    \b
    Examples:
      corral disk list web
    """
    client = session.client()
    disks: list[Any] = list(client.get_vm(name)["spec"]["disks"])
    if output == "table":
        volumes: dict[str, Any] = {volume["uid"]: volume for volume in client.list_volumes()}
        images: dict[str, Any] = {image["uid"]: image for image in client.list_images()}
        disks = [_shown(found, volumes, images) for found in disks]
    show_list(disks, COLUMNS, output)


def _shown(disk: dict[str, Any], volumes: dict[str, Any], images: dict[str, Any]) -> dict[str, Any]:
    volume, image = volumes.get(disk["volume_uid"]), images.get(disk.get("image_uid") or "")
    size = format_bytes(volume["spec"]["size_bytes"]) if volume is not None else ""
    where = volume["name"] if volume is not None else image["name"] if image is not None else disk["path"] or "empty"
    return {**disk, "size": size, "where": where}


@disk.command()
@_NAME
@click.argument("spec", metavar="SPEC")
@click.option("--force", is_flag=True, help="Allow a size larger than the free space (thin provisioning).")
@async_option
@output_option
@pass_session
def add(session: Session, name: str, spec: str, force: bool, asynchronous: bool, output: str) -> None:
    """Add a disk or a drive. SPEC is that of `create --disk` (virsh: attach-disk).

    \b
    Examples:
      corral disk add web 20
      corral disk add web size=20,name=data,bus=scsi,iops=500
      corral disk add web path=/srv/disks/old.qcow2
      corral disk add web volume=old-data-0b5e6f0a
      corral disk add desk device=cdrom,image=virtio-win.iso
    """
    from corral.cli.storage_options import parse_disk

    body = cast("AttachDiskRequest", {**parse_disk(spec), **({"force": True} if force else {})})
    finish_change(
        session, (name,), lambda vm: session.client().attach_disk(vm, body), "disk added", output, asynchronous
    )


@disk.command()
@_NAME
@_DISK
@click.option("--delete", is_flag=True, help="Delete its volume too, once the guest has let it go.")
@async_option
@output_option
@pass_session
def remove(session: Session, name: str, disk: str, delete: bool, asynchronous: bool, output: str) -> None:
    """Take a disk out. Its volume stays, unless --delete says otherwise (virsh: detach-disk).

    \b
    Examples:
      corral disk remove web data
      corral disk remove web data --delete
    """
    client = session.client()
    if delete and asynchronous:
        raise click.UsageError("--delete waits until the guest has let the disk go: leave --async out")
    volume_uid = next(
        (found["volume_uid"] for found in client.get_vm(name)["spec"]["disks"] if found["name"] == disk), None
    )
    finish_change(session, (name,), lambda vm: client.detach_disk(vm, disk), "disk removed", output, asynchronous)
    if delete and volume_uid:
        wait_for(session, client.delete_volume(volume_uid)["operation"])


@disk.command(context_settings={"ignore_unknown_options": True})  # -5 is a size, a wrong one
@_NAME
@_DISK
@click.argument("size")
@click.option("--force", is_flag=True, help="Allow a size larger than the free space (thin provisioning).")
@async_option
@output_option
@pass_session
def resize(session: Session, name: str, disk: str, size: str, force: bool, asynchronous: bool, output: str) -> None:
    """Grow a disk; a running guest sees it at once (virsh: blockresize). A bare number is GiB; +10 adds.

    \b
    Examples:
      corral disk resize web root 40
      corral disk resize web data +10G
    """
    client = session.client()
    if size.startswith("-"):
        reason = "a disk cannot become smaller: that would cut off what lies at its end"
        hint = f"corral disk resize {name} {disk} +10G makes it larger"
        raise CorralError("invalid-size", f"resize disk {disk} of {name} by {size[:40]}", reason, hint)
    size_bytes = parse_size_bytes(size.removeprefix("+"), "g", "disk")
    if size.startswith("+"):
        size_bytes += _size_of(session, name, disk)
    body: ChangeDiskRequest = {"size_bytes": size_bytes, **({"force": True} if force else {})}
    finish_change(
        session,
        (name,),
        lambda vm: client.change_disk(vm, disk, body),
        f"{disk} has {format_bytes(size_bytes)}",
        output,
        asynchronous,
    )


def _size_of(session: Session, name: str, disk: str) -> int:
    for found in session.client().get_vm(name)["spec"]["disks"]:
        if found["name"] == disk and found["volume_uid"]:
            return session.client().get_volume(found["volume_uid"])["spec"]["size_bytes"]
    raise CorralError(
        "device-not-found", f"grow disk {disk} of {name}", "it has no such volume", f"corral disk list {name}"
    )


@disk.command("set")
@_NAME
@_DISK
@click.option("--iops", type=int, help="Reads and writes a second, together; 0: no limit.")
@click.option("--bandwidth", metavar="SIZE", help="Bytes a second, reads and writes together: 50M; 0: no limit.")
@click.option(
    "--cache",
    type=click.Choice(["writeback", "none", "writethrough", "directsync", "unsafe"]),
    help="What the host keeps of it in memory.",
)
@click.option("--aio", type=click.Choice(["threads", "native", "io_uring"]), help="How QEMU reads and writes it.")
@click.option("--discard", type=click.Choice(["unmap", "ignore"]), help="Whether freed blocks go back to the host.")
@click.option("--io-thread", type=int, help="The I/O thread that serves it; 0: QEMU's main loop.")
@async_option
@output_option
@pass_session
def set_(session: Session, /, name: str, disk: str, asynchronous: bool, output: str, **knobs: Any) -> None:
    """Limit a disk, or change how it is served (virsh: blkdeviotune).

    \b
    Examples:
      corral disk set web data --iops 500 --bandwidth 50M
      corral disk set web root --cache none --aio native
    """
    names = {"iops": "iops_max", "bandwidth": "bytes_per_s_max"}
    body: dict[str, Any] = {names.get(key, key): value for key, value in knobs.items() if value is not None}
    if "bytes_per_s_max" in body:
        body["bytes_per_s_max"] = parse_size_bytes(body["bytes_per_s_max"], "b", "--bandwidth")
    if not body:
        raise click.UsageError("say what is to change: --iops, --bandwidth, --cache …")
    changed = cast("ChangeDiskRequest", body)
    finish_change(
        session,
        (name,),
        lambda vm: session.client().change_disk(vm, disk, changed),
        "disk changed",
        output,
        asynchronous,
    )


@disk.command()
@_NAME
@_DISK
@click.argument("image", shell_complete=complete_image)
@async_option
@output_option
@pass_session
def insert(session: Session, name: str, disk: str, image: str, asynchronous: bool, output: str) -> None:
    """Put an ISO image into a drive (virsh: change-media --insert).

    \b
    Examples:
      corral disk insert desk cd0 virtio-win.iso
    """
    _medium(session, name, disk, image, f"{image} is in {disk}", output, asynchronous)


@disk.command()
@_NAME
@_DISK
@async_option
@output_option
@pass_session
def eject(session: Session, name: str, disk: str, asynchronous: bool, output: str) -> None:
    """Take the medium out of a drive (virsh: change-media --eject).

    \b
    Examples:
      corral disk eject desk cd0
    """
    _medium(session, name, disk, "", f"{disk} is empty", output, asynchronous)


def _medium(session: Session, name: str, disk: str, image: str, done: str, output: str, asynchronous: bool) -> None:
    finish_change(
        session,
        (name,),
        lambda vm: session.client().change_disk(vm, disk, {"image": image}),
        done,
        output,
        asynchronous,
    )
