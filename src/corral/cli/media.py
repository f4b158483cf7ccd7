"""Media for drives: the ISO images of the daemon's, and files of the user's that become one."""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from corral.cli.progress import wait_for
from corral.cli.session import Session
from corral.errors import CorralError
from corral.names import NAME_MAX_CHARS

if TYPE_CHECKING:
    from corral.client_types import BuildImageRequest

DIGEST_SHOWN: Final = 8
_READY: Final = "ready"


def resolve_media(session: Session, body: dict[str, Any]) -> None:
    """Give each drive's `medium` its image: one of that name, or the file of that path, imported by content. A dry run
    imports nothing: it names the file."""
    for disk in body.get("disks", []):
        text = disk.pop("medium", None)
        if text is None:
            continue
        path = find_file(text)
        if path is None:
            disk["image"] = text
        elif body.get("dry_run"):
            check_local(session, path)
            disk["path"] = str(path)
        else:
            disk["image"] = ensure_image(session, path)


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


def check_local(session: Session, path: Path) -> None:
    """A file of this machine's, which its user may read, and a daemon on the same machine."""
    if session.is_remote:
        raise CorralError(
            "unsupported",
            f"use {path} as a medium",
            "the daemon is on another machine, and reads its own files alone",
            "copy it there, then: corral image import",
        )
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


def ensure_image(session: Session, path: Path) -> str:
    """The name of the image with this file's content; imported if there is none yet."""
    check_local(session, path)
    known = [image for image in session.client().list_images() if _is_medium(image, path.stat().st_size)]
    if known:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        for image in known:
            facts = image["status"].get("facts")
            if facts is not None and facts["digest"] == digest:
                return str(image["name"])
    return import_medium(session, path, _free_name(session, path))


def import_medium(session: Session, path: Path, name: str) -> str:
    """Import the file under that name and wait until it is there."""
    body: BuildImageRequest = {"name": name, "path": str(path), "format": "iso"}
    accepted = session.client().build_image(body)
    click.echo(f"importing {path} as image {name}", err=True)
    wait_for(session, accepted["operation"])
    return name


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
