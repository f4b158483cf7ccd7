"""Images: list, show, build, delete, catalogue."""

from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.completion import complete_image
from corral.cli.options import async_option
from corral.cli.output import Column, Document, age, output_option, show_list, show_one
from corral.cli.progress import finish
from corral.cli.session import Session, pass_session
from corral.names import format_bytes

if TYPE_CHECKING:
    from typing import Literal

    from corral.client_types import BuildImageRequest, ImageSource


def _size(image: Document) -> str:
    facts = image["status"].get("facts")
    return format_bytes(facts["disk_bytes"]) if facts else "-"


def _facts(image: Document) -> Document:
    facts: Document = image["status"].get("facts") or {}
    return facts


COLUMNS: Final = (
    Column("name", lambda image: image["name"]),
    Column("state", lambda image: image["status"]["state"], coloured=True),
    Column("source", lambda image: image["spec"]["source"]),
    Column("os", lambda image: _facts(image).get("os_id")),
    Column("size", _size, right=True),
    Column("age", lambda image: age(image["created_at"])),
)

CATALOGUE: Final = (
    Column("name", lambda entry: entry["name"]),
    Column("made by", lambda entry: "build" if entry.get("build") else "download"),
    Column("user", lambda entry: entry.get("default_user")),
    Column("memory", lambda entry: f"{entry.get('memory_min_mib')}M", right=True),
    Column("title", lambda entry: entry.get("title")),
)


@click.group()
def image() -> None:
    """Images that VMs start from: immutable, named by their content.

    \b
    Examples:
      corral image catalogue
      corral image build debian-12
      corral image import ubuntu-22.04.iso
    """


@image.command("list")
@output_option
@pass_session
def list_(session: Session, output: str) -> None:
    """List the images of this host.

    \b
    Examples:
      corral image list
      corral image list -o name
    """
    show_list(session.client().list_images(), COLUMNS, output)


@image.command()
@output_option
@pass_session
def catalogue(session: Session, output: str) -> None:
    """List what can be built or downloaded.

    \b
    Examples:
      corral image catalogue
    """
    show_list(session.client().catalogue(), CATALOGUE, output)


@image.command()
@click.argument("name", metavar="IMAGE", shell_complete=complete_image)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show everything about an image.

    \b
    Examples:
      corral image show debian-12
    """
    found: Document = session.client().get_image(name)
    status, facts = found["status"], _facts(found)
    boots = [what for what in ("bios", "uefi") if facts.get(what)] + (["kernel"] if facts.get("has_kernel") else [])
    error = f"{status.get('last_error')} [{status['last_error_code']}]" if status.get("last_error_code") else ""
    rows: list[tuple[str, object]] = [
        ("name", found["name"]),
        ("uid", found["uid"]),
        ("state", status["state"]),
        ("error", error),
        ("catalogue", found["spec"].get("catalogue")),
        ("source", found["spec"]["source"]),
        ("digest", facts.get("digest")),
        ("os", facts.get("os_id")),
        ("description", facts.get("description")),
        ("kind", facts.get("kind", "disk") if facts else ""),
        ("label", facts.get("volume_id")),
        ("format", facts.get("disk_format")),
        ("disk", format_bytes(facts["disk_virtual_bytes"]) if facts else ""),
        ("on disk", _size(found) if facts else ""),
        ("boots by", ", ".join(boots)),
        ("user", facts.get("default_user")),
        ("cloud-init", facts.get("cloud_init")),
        ("guest agent", facts.get("guest_agent")),
        ("least memory", f"{facts['memory_min_mib']}M" if facts else ""),
        ("created", found["created_at"]),
    ]
    show_one(found, rows, output)


@image.command()
@click.argument("entry", metavar="[ENTRY | NAME --path FILE]", required=False)
@click.option("--name", default="", help="The image's name.  [default: the entry's]")
@click.option("--path", default="", metavar="FILE", help="Import this disk image of yours instead; it is copied.")
@click.option("--source", type=click.Choice(["build", "download"]), help="[default: build where there is a recipe]")
@async_option
@output_option
@pass_session
def build(
    session: Session,
    entry: str | None,
    name: str,
    path: str,
    source: "ImageSource | None",
    asynchronous: bool,
    output: str,
) -> None:
    """Make an image: build it from packages, download the vendor's, or import a file.

    \b
    Examples:
      corral image build debian-12
      corral image build micro
      corral image build ubuntu-24.04 --async
      corral image build mine --path /srv/mine.qcow2
    """
    from pathlib import Path

    body: BuildImageRequest = {}
    if path and not name:
        name, entry = entry or "", None  # with a file there is no entry: the word is the image's name
    if entry:
        body["catalogue"] = entry
    if name:
        body["name"] = name
    if path:
        body["path"] = str(Path(path).expanduser().absolute())
    if source:
        body["source"] = source
    if not entry and not path:
        raise click.UsageError("name an entry of `corral image catalogue`, or give --path FILE")
    finish(
        session,
        (name or entry or Path(path).stem,),
        lambda _name: session.client().build_image(body)["operation"],
        output=output,
        done="ready",
        asynchronous=asynchronous,
    )


@image.command("import")
@click.argument("path", metavar="FILE")
@click.option("--name", default="", help="The image's name.  [default: the file's]")
@click.option("--iso", is_flag=True, help="It is the image of a CD or DVD, whatever it is called.")
@click.option("--format", "format_", type=click.Choice(["qcow2", "raw"]), help="A disk's format.  [default: qcow2]")
@async_option
@output_option
@pass_session
def import_(
    session: Session,
    path: str,
    name: str,
    iso: bool,
    format_: 'Literal["qcow2", "raw"] | None',
    asynchronous: bool,
    output: str,
) -> None:
    """Take a file of yours as an image: a disk, or with .iso or --iso a medium for drives. It is copied, or
    sent to a daemon that is far away or may not read it for you.

    \b
    Examples:
      corral image import ubuntu-22.04.iso
      corral image import rescue.img --iso --name rescue
      corral image import /srv/mine.qcow2 --name mine
    """
    from pathlib import Path

    from corral.cli.media import check_readable, medium_name, take_file

    file = Path(path).expanduser().absolute()
    file = file.resolve() if file.exists() else file
    check_readable(file)
    is_medium = iso or (format_ is None and file.suffix.lower() == ".iso")
    name = name or (medium_name(file) if is_medium else file.stem.lower())
    body: BuildImageRequest = {"name": name, "format": "iso" if is_medium else format_ or "qcow2"}
    finish(
        session,
        (name,),
        lambda _name: take_file(session, file, body)["operation"],
        output=output,
        done="ready",
        asynchronous=asynchronous,
    )


@image.command()
@click.argument("names", nargs=-1, required=True, metavar="IMAGE…", shell_complete=complete_image)
@async_option
@output_option
@pass_session
def delete(session: Session, names: tuple[str, ...], asynchronous: bool, output: str) -> None:
    """Delete images that no disk stands on.

    \b
    Examples:
      corral image delete ubuntu-22.04
    """

    def request(name: str) -> Any:
        answer: Any = session.client().delete_image(name)
        return answer["operation"]

    finish(session, names, request, output=output, done="deleted", asynchronous=asynchronous)
