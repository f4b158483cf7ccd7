"""From the options of `create` and `install` to the request's document: only what was said, nothing of defaults.

What has to be resolved before it is sent lies in it under keys of our own: a drive's `medium`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from corral.cli import hardware_options as machine
from corral.cli import keys
from corral.cli.documents import read_document
from corral.cli.storage_options import parse_disk, parse_graphics, parse_networks
from corral.cli.syntax import truth
from corral.errors import CorralError

Options = dict[str, Any]
Body = dict[str, Any]


def request_body(name: str, options: Options) -> Body:
    """The request's document."""
    body: Body = {"name": name}
    plain = ("image", "hostname", "firmware", "run_policy", "user", "description", "force", "dry_run")
    body.update({key: options[key] for key in plain if options[key]})
    if options["protect"]:
        body["protected"] = True
    if options["no_start"]:
        body["start"] = False
    if options["disks"] and options["disks"] != ("none",) and not options["nodisks"]:
        body["disks"] = [parse_disk(text) for text in options["disks"]]
    if options["cdrom"]:
        body.setdefault("disks", []).append({"device": "cdrom", "medium": options["cdrom"]})
    if options["networks"]:
        body["nics"] = parse_networks(options["networks"])
    _merge(body, _screen(options))
    _merge(body, _machine(options))
    if options["os_variant"]:
        _merge(body, parse_os_variant(options["os_variant"]))
    _merge(body, _boot(options, body))
    if options["labels"]:
        body["labels"] = parse_labels(options["labels"])
    body.update(_boot_order(options["autostart"], options["priority"]))
    for key in ("user_data", "network_config"):
        if options[key]:
            body[key] = read_document(options[key], f"--{key.replace('_', '-')}")
    password = keys.password(options["ask_password"], options["password_file"])
    if password:
        body["password"] = password
    body.update(_ssh_keys(options))
    return body


def _merge(into: Body, part: Body) -> None:
    """Nested documents grow together; what is said last counts."""
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _screen(options: Options) -> Body:
    part = parse_graphics(options["graphics"]) if options["graphics"] else {}
    if options["nographics"]:
        part["graphics"] = "none"
    return part


def _machine(options: Options) -> Body:
    part: Body = {}
    if options["memory"] is not None:
        _merge(part, machine.parse_memory(options["memory"]))
    if options["vcpus"] is not None:
        _merge(part, machine.parse_vcpus(options["vcpus"]))
    hardware: Body = {}
    if options["cpu"]:
        hardware["cpu"] = machine.parse_cpu(options["cpu"])
    readers: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
        ("tpm", "tpm", machine.parse_tpm),
        ("watchdog", "watchdog", machine.parse_watchdog),
        ("video", "video", machine.parse_video),
        ("sound", "sound", machine.parse_sound),
        ("rng", "rng", machine.parse_rng),
    )
    hardware.update({field: read(options[option]) for option, field, read in readers if options[option]})
    if options["serials"]:
        hardware["serials"] = machine.parse_serials(options["serials"])
    if options["panic"]:
        hardware["panic"] = options["panic"] not in ("none", "no")
    if options["clock"]:
        hardware["clock"] = _clock(options["clock"])
    hardware.update(machine.parse_controllers(options["controllers"]))
    if options["iothreads"] is not None:
        hardware["io_threads"] = options["iothreads"]
    if options["filesystems"]:
        hardware["shares"] = [machine.parse_filesystem(text) for text in options["filesystems"]]
    if options["hostdevs"]:
        hardware["host_devices"] = [machine.parse_hostdev(text) for text in options["hostdevs"]]
    if hardware:
        _merge(part, {"hardware": hardware})
    return part


def _clock(text: str) -> str:
    offset = text.removeprefix("offset=")
    if offset not in ("utc", "localtime"):
        raise CorralError("unsupported", f"--clock {text!r}", "the clock is UTC or local time", "offset=utc")
    return offset


def _boot(options: Options, body: Body) -> Body:
    """Firmware, kernel and the order; the order of virt-install's words is spelt out in names of disks and cards."""
    boot = machine.parse_boot(options["boot"]) if options["boot"] else {}
    hardware: Body = {key: boot[key] for key in ("boot_menu", "secure_boot", "kernel") if key in boot}
    wanted = body.get("disks", [])
    names = device_names(wanted)
    nics = [f"net{index}" for index in range(len(body.get("nics", [None])))]
    ordered = _numbered(names, wanted, nics, body.get("nics", []))
    if "order" in boot:
        drives = [name for name, disk in zip(names, wanted, strict=True) if disk.get("device") == "cdrom"]
        disks = [name for name in names if name not in drives] or (["root"] if body.get("image") else [])
        places = {"hd": disks, "cdrom": drives, "network": nics}
        ordered = [name for word in boot["order"] for name in places[word]]
    if ordered:
        hardware["boot_devices"] = ordered
    if options["pxe"] or "network" in boot.get("order", ()):
        if not nics:
            raise CorralError("invalid-argument", "--pxe", "there is no network card", "--network default")
        body.setdefault("nics", [{}])[0]["pxe"] = True
    part: Body = {"hardware": hardware} if hardware else {}
    if "firmware" in boot:
        part["firmware"] = boot["firmware"]
    return part


def device_names(wanted: Sequence[Body]) -> list[str]:
    """The names that disks and drives get (services/disks.py has the same rule)."""
    names: list[str] = []
    disks = drives = 0
    for disk in wanted:
        if disk.get("device") == "cdrom":
            names.append(disk.get("name") or f"cd{drives}")
            drives += 1
        else:
            names.append(disk.get("name") or (f"disk{disks}" if disks else "root"))
            disks += 1
    return names


def _numbered(names: Sequence[str], disks: Sequence[Body], nics: Sequence[str], cards: Sequence[Body]) -> list[str]:
    """Devices with a `boot_order` of their own, in that order. `names`: those of `disks`."""
    found = [(disk.pop("boot_order"), name) for disk, name in zip(disks, names, strict=True) if "boot_order" in disk]
    for card, name in zip(cards, nics, strict=False):
        if "boot_order" in card:
            found.append((card.pop("boot_order"), name))
            card["pxe"] = True
    return [name for _, name in sorted(found)]


def parse_os_variant(text: str) -> Body:
    """`ubuntu22.04`, `detect=on,require=off`, `name=win11`. Detection is what happens without a name anyway."""
    if "=" not in text:
        return {} if text in ("auto", "none") else {"os": text}
    part: Body = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if key in ("name", "short-id") and value:
            part["os"] = value
        elif key in ("detect", "require") and equals:
            truth(value, f"--os-variant {key}")
        elif not equals and pair == text.partition(",")[0]:
            part["os"] = pair
        else:
            raise CorralError(
                "invalid-argument",
                f"--os-variant {text!r}",
                f"there is no key {key!r}",
                "corral os list shows the names",
            )
    return part


def _boot_order(autostart: bool, priority: int | None) -> Body:
    if not autostart and priority is None:
        return {}
    return {"boot": {"autostart": autostart, **({} if priority is None else {"priority": priority})}}


def _ssh_keys(options: Options) -> Body:
    """The keys that were named; else the caller's own, for images, which are what reads them. Where there are none,
    whoever sends the request makes a pair (`needs_key`), once nothing else is in its way."""
    if options["ssh_keys"]:
        return {"ssh_keys": [key for path in options["ssh_keys"] for key in keys.read_public(Path(path).expanduser())]}
    found = keys.own() if _wants_own_key(options) else []
    return {"ssh_keys": found} if found else {}


def _wants_own_key(options: Options) -> bool:
    return bool(options["image"]) and not options["no_ssh_key"] and not options["dry_run"]


def needs_key(options: Options, body: Body) -> bool:
    """Nobody could log in to what this request makes, and its caller has no key."""
    return _wants_own_key(options) and "ssh_keys" not in body


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """`--label env=test`; without a value the label is empty."""
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}
