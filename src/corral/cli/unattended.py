"""Installations without a question: the answers go into the installer's initrd, or onto a second medium."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import click

from corral.cli.documents import read_document
from corral.cli.media import await_medium, check_local, find_file
from corral.cli.session import Session
from corral.cli.syntax import Syntax
from corral.cli.vm_request import Body, Options
from corral.errors import CorralError
from corral.names import NAME_MAX_CHARS

if TYPE_CHECKING:
    from corral.client_types import BuildImageRequest

_PROFILE: Final = "write the answers yourself: --unattended FILE (preseed, kickstart, autoinstall or autounattend.xml)"
UNATTENDED: Final = Syntax(
    option="--unattended",
    keys={"file": "file", "kind": "kind"},
    first="file",
    refused=dict.fromkeys(
        (
            "profile",
            "admin-password-file",
            "admin-password",
            "user-login",
            "user-password-file",
            "product-key",
            "reg-login",
        ),
        _PROFILE,
    ),
)
LOCATION: Final = Syntax(option="--location", keys={"kernel": "kernel", "initrd": "initrd"}, first="place")

KINDS: Final = ("preseed", "kickstart", "autoinstall", "answer-file")
# Where each installer looks: the label of a medium, and the file's name on it. debian-installer reads its initrd alone.
_MEDIA: Final = {
    "autoinstall": ("cidata", "user-data"),
    "kickstart": ("OEMDRV", "ks.cfg"),
    "answer-file": ("ANSWERS", "autounattend.xml"),
}
_PRESEED: Final = "preseed.cfg"
_ARGUMENTS: Final = {"preseed": "auto=true priority=critical", "autoinstall": "autoinstall"}


@dataclass
class Answers:
    """What goes where. `arguments` are for the kernel, where its command line is ours."""

    injected: dict[str, str] = field(default_factory=dict)
    medium: dict[str, str] = field(default_factory=dict)
    label: str = ""
    arguments: str = ""


def add_installer(session: Session, body: Body, options: Options) -> list[str]:
    """Put into the request's drives what --location, --initrd-inject and --unattended come to, and return the images made
    for it. A dry run reads and checks the files and makes nothing: its drives are empty."""
    answers = _answers(session, options, body)
    if not options["location"]:
        if answers.injected or options["extra_args"]:
            what = "--extra-args" if options["extra_args"] else "--initrd-inject"
            raise CorralError("invalid-argument", what, "there is no installer's kernel to give it to", "--location")
        return _add_answers(session, body, answers) if answers.medium else []
    pairs = LOCATION.read(options["location"])
    place = pairs.pop("place", "")
    if not urlsplit(place).scheme:
        path = find_file(place if "/" in place else f"./{place}")
        assert path is not None  # it has a slash, so it is a file or an error
        if path.is_file():
            check_local(session, path)
            body.setdefault("disks", []).append({"device": "cdrom", "medium": str(path)})
        place = str(path)
    request: BuildImageRequest = {"location": place, "cmdline": f"{options['extra_args']} {answers.arguments}".strip()}
    request.update({"files": answers.injected} if answers.injected else {})
    if pairs:
        request.update({"kernel": pairs.get("kernel", ""), "initrd": pairs.get("initrd", "")})
    drives = [disk for disk in body.setdefault("disks", []) if disk.get("device") == "cdrom"]
    at = body["disks"].index(drives[0]) if drives else len(body["disks"])
    drive = _drive(session, body, request, "installer")
    body["disks"].insert(at, drive)
    made = [drive["image"]] if "image" in drive else []
    return [*made, *(_add_answers(session, body, answers) if answers.medium else [])]


def _add_answers(session: Session, body: Body, answers: Answers) -> list[str]:
    request: BuildImageRequest = {"files": answers.medium, "volume_id": answers.label}
    drive = _drive(session, body, request, "answers")
    body.setdefault("disks", []).append(drive)
    return [drive["image"]] if "image" in drive else []


def _drive(session: Session, body: Body, request: "BuildImageRequest", purpose: str) -> dict[str, Any]:
    """A drive with the medium that is made of it."""
    if body.get("dry_run"):
        return {"device": "cdrom"}
    request["name"] = _free_name(session, f"{body['name']}-{purpose}")
    accepted = session.client().build_image(request)
    click.echo(f"making the medium {request['name']}", err=True)
    await_medium(session, accepted, request["name"])
    return {"device": "cdrom", "image": request["name"]}


def _free_name(session: Session, stem: str) -> str:
    images = session.client().list_images(fields="name,status.state")
    taken = {image["name"] for image in images if image["status"]["state"] != "failed"}  # what failed is made again
    stem = stem[: NAME_MAX_CHARS - 8]
    numbered = (f"{stem}.iso" if number == 1 else f"{stem}-{number}.iso" for number in range(1, 1000))
    return next(name for name in numbered if name not in taken)


def _answers(session: Session, options: Options, body: Body) -> Answers:
    answers = Answers()
    for name in options["initrd_inject"]:
        answers.injected[Path(name).name] = read_document(name, "--initrd-inject")
    if not options["unattended"]:
        return answers
    if options["unattended"] == "yes":
        raise CorralError("unsupported", "--unattended", "Corral writes no answers of its own", _PROFILE)
    pairs = UNATTENDED.read(options["unattended"])
    text = read_document(pairs["file"], "--unattended")
    kind = pairs.get("kind") or kind_of(text) or _kind_of_system(session, body)
    if kind not in KINDS:
        raise CorralError(
            "invalid-argument",
            f"--unattended {pairs['file']}",
            f"{kind!r} is no kind of answers" if kind else "it cannot be told what kind of answers these are",
            f"--unattended {pairs['file']},kind={'|'.join(KINDS)}",
        )
    answers.arguments = _ARGUMENTS.get(kind, "")
    if kind in _MEDIA:
        answers.label, name = _MEDIA[kind]
        answers.medium = {name: text, **({"meta-data": ""} if kind == "autoinstall" else {})}
        return answers
    if not options["location"]:
        raise CorralError(
            "unsupported",
            f"--unattended {pairs['file']}",
            "debian-installer reads a preseed file out of its initrd, and the initrd of a finished medium cannot grow",
            f"--location {options['cdrom'] or 'debian.iso'} instead of --cdrom",
        )
    answers.injected[_PRESEED] = text
    return answers


def kind_of(text: str) -> str:
    """By what only one kind has; empty where none is seen."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if "<unattend" in text[:4096]:
        return "answer-file"
    if text.startswith("#cloud-config") or any(line.startswith("autoinstall:") for line in lines):
        return "autoinstall"
    if any(line.startswith(("d-i ", "debconf ")) for line in lines):
        return "preseed"
    if "%packages" in lines or any(line.startswith(("rootpw ", "autopart", "%packages ")) for line in lines):
        return "kickstart"
    return ""


def _kind_of_system(session: Session, body: Body) -> str:
    if not body.get("os"):
        return ""
    found: Any = session.client().request("GET", f"/v1/os/{quote(body['os'], safe='')}")
    return str(found["unattended"])
