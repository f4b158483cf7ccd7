"""`corral set`: the knobs of a VM's machine, by name. The table is the help page."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import click

from corral.cli.change import finish_change
from corral.cli.completion import complete_vm
from corral.cli.hardware_options import memory_mib, parse_hostdev
from corral.cli.options import async_option
from corral.cli.output import output_option
from corral.cli.session import Session, pass_session
from corral.cli.syntax import number, truth
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.client_types import UpdateVmRequest

Read = Callable[[str, str], Any]
"""A knob's text, and its name for the error, as the request's value."""


class Knob(NamedTuple):
    path: str
    """Where it stands in the request."""
    read: Read
    help: str


def _text(text: str, _option: str) -> str:
    return text


def _size(text: str, _option: str) -> int:
    return memory_mib(text)


def _words(text: str, _option: str) -> list[str]:
    return text.split(",")


def _pins(text: str, option: str) -> list[dict[str, Any]]:
    """`0:2-3/1:4` as a list of pins."""
    pins = []
    for part in text.split("/"):
        vcpu, colon, cpus = part.partition(":")
        if not colon:
            raise CorralError("invalid-argument", f"{option}={text}", f"{part!r} is not VCPU:CPUS", "write 0:2-3/1:4")
        pins.append({"vcpu": number(vcpu, option), "cpus": cpus})
    return pins


def _shares(text: str, option: str) -> list[dict[str, Any]]:
    """`src:/srv/src,home:/home/ann:rw` as a list of shares."""
    shares = []
    for part in text.split(","):
        name, _, rest = part.partition(":")
        path, _, mode = rest.partition(":")
        if not path or mode not in ("", "ro", "rw"):
            raise CorralError("invalid-argument", f"{option}={text}", f"{part!r} is not NAME:PATH[:rw]")
        shares.append({"name": name, "path": path, "read_only": mode != "rw"})
    return shares


def _devices(text: str, _option: str) -> list[dict[str, str]]:
    return [parse_hostdev(part) for part in text.split(",")]


KNOBS: Final[dict[str, Knob]] = {
    "memory": Knob("memory_mib", _size, "2G; a bare number is MiB"),
    "vcpus": Knob("vcpus", number, "virtual CPUs"),
    "cpu-shares": Knob("cpu_shares", number, "weight against other guests; 1024 a vCPU is usual"),
    "firmware": Knob("firmware", _text, "bios or uefi"),
    "graphics": Knob("graphics", _text, "vnc, spice or none"),
    "graphics-listen": Knob("graphics_listen", _text, "an IP address that the screen is open on"),
    "run-policy": Knob("run_policy", _text, "always, on-failure or manual"),
    "description": Knob("description", _text, "for people"),
    "cpu.model": Knob("hardware.cpu.model", _text, "host-model, host-passthrough, maximum or QEMU's name of one"),
    "cpu.features": Knob("hardware.cpu.features", _words, "+avx2,-svm"),
    "cpu.sockets": Knob("hardware.cpu.topology.sockets", number, "as the guest sees them"),
    "cpu.cores": Knob("hardware.cpu.topology.cores", number, "in each socket"),
    "cpu.threads": Knob("hardware.cpu.topology.threads", number, "in each core"),
    "cpu.topology": Knob("hardware.cpu.topology", _text, "none: one socket for each vCPU"),
    "cpu.max": Knob("hardware.cpu.vcpus_max", number, "so many vCPUs can be plugged in while it runs"),
    "cpu.pins": Knob("hardware.cpu.pins", _pins, "VCPU:HOST-CPUS, as in 0:2-3/1:4"),
    "cpu.emulator": Knob("hardware.cpu.emulator_cpus", _text, "host CPUs for QEMU itself"),
    "cpu.quota": Knob("hardware.cpu.quota_percent", number, "at most so many percent of one host CPU"),
    "cpu.reserved": Knob("hardware.cpu.reserved_percent", number, "promised percent of one host CPU"),
    "cpu.nested": Knob("hardware.cpu.nested", truth, "yes: a hypervisor inside the guest"),
    "memory.max": Knob("hardware.memory.max_mib", _size, "so much can be plugged in while it runs"),
    "memory.reserved": Knob("hardware.memory.reserved_mib", _size, "promised memory"),
    "memory.huge-pages": Knob("hardware.memory.huge_pages", _text, "2M or 1G"),
    "memory.locked": Knob("hardware.memory.locked", truth, "yes: never swapped out"),
    "secure-boot": Knob("hardware.secure_boot", truth, "yes, with firmware=uefi"),
    "tpm": Knob("hardware.tpm", truth, "yes: a TPM 2.0"),
    "watchdog": Knob("hardware.watchdog", _text, "reset, poweroff, pause or none"),
    "vmgenid": Knob("hardware.vmgenid", truth, "yes: the guest notices when it was copied"),
    "rng": Knob("hardware.rng", truth, "no: without the random number generator"),
    "panic": Knob("hardware.panic", truth, "no: a panic is not told"),
    "hyperv": Knob("hardware.hyperv", truth, "yes: for Windows"),
    "clock": Knob("hardware.clock", _text, "utc or localtime"),
    "video": Knob("hardware.video", _text, "vga, virtio, qxl, bochs, ramfb or none"),
    "sound": Knob("hardware.sound", _text, "ich9, ac97, virtio or none"),
    "usb": Knob("hardware.usb", truth, "yes: a USB 3 controller"),
    "tablet": Knob("hardware.tablet", _text, "virtio or usb"),
    "serials": Knob("hardware.serials", number, "serial ports"),
    "io-threads": Knob("hardware.io_threads", number, "threads that serve disks"),
    "shares": Knob("hardware.shares", _shares, "host folders, NAME:PATH[:rw],…"),
    "host-devices": Knob("hardware.host_devices", _devices, "0000:01:00.0 or 046d:c52b,…"),
    "boot-devices": Knob("hardware.boot_devices", _words, "names of disks, drives and cards, in this order"),
    "boot-menu": Knob("hardware.boot_menu", truth, "yes: the firmware asks"),
}
# Words that are a value of their own here, and else mean: back to the default.
_OWN_NONE: Final = frozenset({"graphics", "video", "sound"})


def request_of(settings: tuple[str, ...]) -> dict[str, Any]:
    """The request that `KEY=VALUE …` stands for; an empty value, or `none`, goes back to the default."""
    request: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        knob = KNOBS.get(key.replace("_", "-"))
        if knob is None:
            raise CorralError("invalid-argument", setting, f"there is no knob {key!r}", f"knobs: {', '.join(KNOBS)}")
        default = knob.path.startswith("hardware.") and (not text or (text == "none" and key not in _OWN_NONE))
        _put(request, knob.path.split("."), None if default else knob.read(text, key))
    return request


def _put(target: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = value


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [] if "=" in incomplete else [f"{key}=" for key in KNOBS if key.startswith(incomplete)]


def _complete_word(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [*complete_vm(ctx, param, incomplete), *_complete(ctx, param, incomplete)]


class _WithKnobs(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Knobs"):
            formatter.write_dl([(f"{key}=", knob.help) for key, knob in KNOBS.items()])


@click.command("set", cls=_WithKnobs)
@click.argument("words", nargs=-1, required=True, metavar="VM… KEY=VALUE…", shell_complete=_complete_word)
@async_option
@output_option
@pass_session
def set_(session: Session, words: tuple[str, ...], asynchronous: bool, output: str) -> None:
    """Change a VM's machine. A running guest has it at once where that is possible; what waits for a restart is said.

    An empty value goes back to the default. Bare sizes are MiB.

    \b
    Examples:
      corral set web memory=2G vcpus=4
      corral set web db cpu.quota=150 watchdog=reset
      corral set web cpu.model=host-passthrough memory.max=8G
      corral set web watchdog=
    """
    names = tuple(word for word in words if "=" not in word)
    settings = tuple(word for word in words if "=" in word)
    if not names or not settings:
        raise click.UsageError("name a VM, then what is to change: corral set web memory=2G")
    body = cast("UpdateVmRequest", request_of(settings))
    finish_change(
        session,
        names,
        lambda name: session.client().update_vm(name, body),
        "changed",
        output,
        asynchronous,
    )
