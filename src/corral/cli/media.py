"""Media for drives: the ISO images of the daemon's, and files of the user's that become one."""

import hashlib
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.progress import wait_for
from corral.cli.session import Session
from corral.errors import CorralError
from corral.names import NAME_MAX_CHARS

if TYPE_CHECKING:
    from corral.client_types import BuildImageRequest, ImageAccepted

DIGEST_SHOWN: Final = 8
IMPORT_TRIES: Final = 5
UPLOAD_PIECE_BYTES: Final = 256 * 1024
_READY: Final = "ready"
UNREACHABLE: Final = "daemon-unreachable"


def resolve_media(session: Session, body: dict[str, Any]) -> list[str]:
    """Give each drive's `medium` its image: one of that name, or the file of that path, imported by content. A dry run
    imports nothing: it names the file. Returns the images that were imported."""
    imported: list[str] = []
    for disk in body.get("disks", []):
        text = disk.pop("medium", None)
        if text is None:
            continue
        path = find_file(text)
        if path is None:
            disk["image"] = text
        elif body.get("dry_run"):
            check_readable(path)
            if session.is_remote:
                click.echo(f"note: {path} is not sent for a dry run: its drive is empty", err=True)
            else:
                disk["path"] = str(path)
        else:
            disk["image"] = _imported_before(session, path) or _import(session, path, imported)
    return imported


def _import(session: Session, path: Path, imported: list[str]) -> str:
    """Import the file; where another command takes the name in the same instant, maybe for the same file, see what came
    of that first."""
    left = IMPORT_TRIES
    while True:
        name = _free_name(session, path)
        try:
            import_medium(session, path, name)
        except CorralError as error:
            left -= 1
            if not left or error.code not in ("wrong-state", "name-taken"):
                raise
            _await_others(session, name)
            if known := _imported_before(session, path):
                return known
        else:
            imported.append(name)
            return name


def _await_others(session: Session, name: str) -> None:
    """Until no operation on the image of that name is under way, however it ended."""
    client = session.client()
    for operation in client.list_operations():
        spec = operation["spec"]
        if (spec["target_kind"], spec["target_name"]) == ("image", name):
            client.wait_operation(operation["uid"])


def find_file(text: str) -> Path | None:
    """The file that `text` names; None if it is an image's name. Raises `image-not-found` for neither."""
    if re.match(r"[a-z]+://", text):
        raise CorralError(
            "unsupported", f"--cdrom {text}", "a medium is read from a file", "download it, then --cdrom FILE"
        )
    path = Path(text).expanduser()
    looks_like_a_file = "/" in text or text.startswith("~")
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        if not looks_like_a_file:
            return None
        raise CorralError(
            "image-not-found",
            f"use {text} as a medium",
            getattr(error, "strerror", None) or "there is no such file",
            "name an ISO file, or an image of corral image list",
        ) from error
    return resolved


def check_readable(path: Path) -> None:
    """Whether its user may read it: nobody gets hold of a file through the daemon's rights."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise CorralError(
            "image-invalid",
            f"use {path} as a medium",
            error.strerror or str(error),
            "you need the right to read it yourself; Corral then copies it, whatever its directory's mode is",
        ) from error


def check_local(session: Session, path: Path) -> None:
    """A file that the daemon reads by its path: it is on this machine."""
    check_readable(path)
    if session.is_remote:
        raise CorralError(
            "unsupported", f"use {path}", "the daemon is on another machine, and reads its own files", "copy it there"
        )


def take_file(session: Session, path: Path, body: "BuildImageRequest") -> "ImageAccepted":
    """Ask for an image of the file: by its path where the daemon may read the host's files for this caller, else the
    file is sent."""
    check_readable(path)
    client = session.client()
    if not session.is_remote:
        try:
            return client.build_image({**body, "path": str(path)})
        except CorralError as error:
            if error.code != "forbidden":
                raise
    from corral.cli.cp import Meter

    meter = Meter(str(path), path.stat().st_size)
    try:
        with path.open("rb") as stream:
            token = client.upload(iter(lambda: stream.read(UPLOAD_PIECE_BYTES), b""), meter)
    finally:
        meter.end()
    return client.build_image({**body, "upload": token})


def _imported_before(session: Session, path: Path) -> str:
    """The name of the image with this file's content; empty if there is none yet."""
    check_readable(path)
    known = [image for image in session.client().list_images() if _is_medium(image, path.stat().st_size)]
    if known:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        for image in known:
            facts = image["status"].get("facts")
            if facts is not None and facts["digest"] == digest:
                return str(image["name"])
    return ""


def import_medium(session: Session, path: Path, name: str) -> str:
    """Import the file under that name and wait until it is there."""
    click.echo(f"importing {path} as image {name}", err=True)
    await_medium(session, take_file(session, path, {"name": name, "format": "iso"}), name)
    return name


def await_medium(session: Session, accepted: "ImageAccepted", name: str) -> None:
    """Until it is made. One that cannot be leaves no failed image behind: nobody asked for an image."""
    try:
        wait_for(session, accepted["operation"])
    except CorralError as error:
        if error.code != UNREACHABLE:  # a daemon that is away goes on with it when it is back
            with suppress(CorralError):
                session.client().delete_image(name)
        raise


def medium_name(path: Path) -> str:
    """A file's name as an image's: `Win11 (x64).iso` becomes `win11-x64.iso`."""
    stem = re.sub(r"[^a-z0-9.]+", "-", path.name.lower().removesuffix(".iso"))
    stem = re.sub(r"\.{2,}", ".", stem).strip("-.") or "medium"
    return f"{stem[: NAME_MAX_CHARS - 4].strip('-.')}.iso"


def _free_name(session: Session, path: Path) -> str:
    """The file's name; with some of its path's digest where another medium has that name."""
    name = medium_name(path)
    if not any(image["name"] == name for image in session.client().list_images(fields="name")):
        return name
    mark = hashlib.sha256(f"{path}{path.stat().st_mtime_ns}".encode()).hexdigest()[:DIGEST_SHOWN]
    return f"{name[: NAME_MAX_CHARS - 5 - DIGEST_SHOWN].removesuffix('.iso')}-{mark}.iso"


def _is_medium(image: Any, size_bytes: int) -> bool:
    facts = image["status"].get("facts")
    return (
        facts is not None
        and facts.get("kind") == "iso"
        and image["status"]["state"] == _READY
        and facts["disk_virtual_bytes"] == size_bytes
    )
