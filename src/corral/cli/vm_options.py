"""The options that `corral create` and `corral install` share: virt-install's, and those that are Corral's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from corral.cli.completion import complete_image
from corral.errors import CorralError

_F = TypeVar("_F", bound=Callable[..., Any])
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_KEPT: Final = "it is decided by Corral"
# virt-install's options that ask for what is so anyway: accepted where their value begins like this.
AS_IT_IS: Final[Mapping[str, tuple[str, ...]]] = {
    "--arch": ("x86_64",),
    "--channel": ("unix,target.name=org.qemu.guest_agent", "unix,target_type=virtio,name=org.qemu.guest_agent"),
    "--connect": ("qemu:///system",),
    "--console": ("pty",),
    "--input": ("keyboard", "mouse", "tablet"),
    "--machine": ("q35", "pc-q35"),
    "--memballoon": ("virtio", "model=virtio"),
    "--virt-type": ("kvm", "qemu"),
}
# Words of virt-install's that change nothing here.
_SILENT: Final = ("--hvm", "--quiet", "--debug", "--accelerate")
# virt-install's options that are not to be had, and what is instead.
REFUSED: Final[Mapping[str, str]] = {
    "--arch": "guests are x86_64",
    "--audio": "--sound ich9",
    "--blkiotune": "limit a disk: --disk size=20,iops=500,bytes_per_s=50000000",
    "--channel": "the guest agent's channel is always there",
    "--cloud-init": "--user, --ssh-key, --password-file, --user-data",
    "--connect": "--socket or --url choose the daemon",
    "--console": "the serial console is always there",
    "--container": "Corral runs virtual machines",
    "--cputune": "--vcpus 2,cpuset=0-1",
    "--destroy-on-exit": "Ctrl-C leaves the VM as it is",
    "--disk-controller": "--disk size=20,bus=scsi",
    "--events": "--run-policy decides what happens when a guest stops",
    "--features": "--os-variant chooses them",
    "--host-device": "--hostdev",
    "--idmap": "Corral runs virtual machines",
    "--init": "Corral runs virtual machines",
    "--input": "a keyboard and an absolute pointer are always there",
    "--install": "corral image catalogue, then corral create --image",
    "--iommu": _KEPT,
    "--keywrap": _KEPT,
    "--launchSecurity": "memory encryption is not to be had yet",
    "--machine": "the machine is q35",
    "--memballoon": "the balloon is always there",
    "--memdev": _KEPT,
    "--memorybacking": "--memory 2048,hugepages=yes",
    "--memtune": _KEPT,
    "--metadata": "--description and --label",
    "--nonetworks": "--network none",
    "--noreboot": "a guest's own reboot is its own affair; --wait ends when it powers off",
    "--numatune": "corral edit sets NUMA cells",
    "--parallel": "there are no parallel ports",
    "--paravirt": "guests are fully virtualized",
    "--pm": _KEPT,
    "--qemu-commandline": "only what Corral has words for",
    "--redirdev": "--hostdev gives a USB device of the host's to the guest",
    "--reinstall": "make a new VM: its disk can be an old one",
    "--resource": _KEPT,
    "--seclabel": "each QEMU runs under a uid of its own",
    "--security": "each QEMU runs under a uid of its own",
    "--shmem": _KEPT,
    "--smartcard": _KEPT,
    "--sysinfo": _KEPT,
    "--transient": "every VM is kept; corral delete removes it",
    "--virt-type": "the accelerator is measured: corral host info",
    "--vsock": "not to be had yet",
    "--xml": "only what Corral has words for",
}


def _refuse(_ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> None:
    option = param.opts[0]
    for value in values:
        if not value.startswith(AS_IT_IS.get(option, ())):
            asked = option if value == "yes" else f"{option} {value}"
            raise CorralError("unsupported", asked, "it is virt-install's, and not to be had here", REFUSED[option])


def _options() -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Names and settings of each, in the order of the help."""
    spec, many = {"metavar": "SPEC"}, {"metavar": "SPEC", "multiple": True}
    return [
        (("--name",), {"default": "", "help": "The VM's name, also its host name. Lower-case letters, digits, '-'."}),
        (("--image",), {"help": "The image to start from.", "shell_complete": complete_image}),
        (("--memory", "--ram"), {"metavar": "SPEC", "help": "Memory; a bare number is MiB: 1024, 2G, 2G,maxmemory=4G,hugepages=yes.  [default: 1024, or what the system needs]"}),
        (("--vcpus",), {"metavar": "SPEC", "help": "Virtual CPUs: 2, or 4,sockets=2,cores=2,maxvcpus=8,cpuset=0-3.  [default: 1]"}),
        (("--cpu",), {"metavar": "SPEC", "help": "host-model, host-passthrough or a model, +feature and -feature."}),
        (("--disk", "disks"), {**many, "help": "A disk: 20 (GiB), size=20G, or path=/f,format=raw. The first one is the root disk's size when there is an image. With a path and a size it is made, if nothing lies there. Keys: size, path, format, bus, device, image, cache, io, discard, iops, bytes_per_s, iothread, readonly, boot_order, name, keep; or none."}),
        (("--cdrom",), {"metavar": "ISO", "help": "An installer: an ISO image, or a file, which becomes one. It boots as long as the disk is empty."}),
        (("--location",), {"metavar": "PLACE", "help": "An installer's kernel and initrd, out of a directory, an ISO or a URL."}),
        (("--extra-args",), {"default": "", "metavar": "ARGS", "help": "With --location: kernel arguments."}),
        (("--initrd-inject",), {"multiple": True, "metavar": "FILE", "help": "With --location: a file for the root of the installer's initrd."}),
        (("--unattended",), {"is_flag": False, "flag_value": "yes", "metavar": "FILE", "help": "Answers for the installer: preseed (with --location), kickstart, autoinstall or autounattend.xml; a second medium brings them."}),
        (("--network", "networks"), {**many, "help": "A network card: default, network=default,mac=…,address=…,model=virtio,link=down, also groups=web+ssh, in=100mbit, out=…; or none."}),
        (("--os-variant", "--osinfo", "os_variant"), {"metavar": "OS", "help": "The guest's system, see corral os list: what is left open is chosen for it."}),
        (("--boot",), {"metavar": "SPEC", "help": "uefi, hd,cdrom,network, menu=on, loader.secure=yes, kernel=…,initrd=…,kernel_args=…."}),
        (("--firmware",), {"type": click.Choice(["bios", "uefi"]), "help": "[default: what the image or the system boots by]"}),
        (("--pxe",), {"is_flag": True, "help": "Boot from the first network card, while the disk is empty."}),
        (("--import", "import_"), {"is_flag": True, "help": "Install nothing: the disk boots as it is."}),
        (("--graphics",), {"metavar": "SPEC", "help": "vnc, spice or none; listen=ADDRESS opens it to everyone who reaches that.  [default: vnc on a Unix socket]"}),
        (("--nographics",), {"is_flag": True, "help": "As --graphics none."}),
        (("--video",), {**spec, "help": "vga, virtio, qxl, bochs or none."}),
        (("--sound",), {**spec, "help": "ich9, ac97, virtio."}),
        (("--tpm",), {**spec, "help": "emulator (a TPM 2.0) or none."}),
        (("--watchdog",), {**spec, "help": "default,action=reset|poweroff|pause|none; or none."}),
        (("--rng",), {**spec, "help": "/dev/urandom or none.  [default: /dev/urandom]"}),
        (("--serial", "serials"), {**many, "help": "pty; each one is a further serial port."}),
        (("--panic",), {**spec, "help": "default or none."}),
        (("--clock",), {**spec, "help": "offset=utc or offset=localtime."}),
        (("--controller", "controllers"), {**many, "help": "usb; other controllers come with what needs them."}),
        (("--iothreads",), {"type": int, "help": "Threads for disks: --disk …,iothread=1."}),
        (("--filesystem", "filesystems"), {**many, "help": "A folder of the host's: /srv/data,data[,readonly=no]; mount -t virtiofs data /mnt."}),
        (("--hostdev", "hostdevs"), {**many, "help": "A device of the host's: 0000:01:00.0 or 046d:c52b."}),
        (("--ssh-key", "ssh_keys"), {"multiple": True, "metavar": "FILE", "help": "A public key that may log in (repeatable). Default: your own, or one is made."}),
        (("--no-ssh-key",), {"is_flag": True, "help": "No key at all."}),
        (("--user",), {"default": "", "help": "The user to log in as.  [default: the image's own]"}),
        (("--password", "ask_password"), {"is_flag": True, "help": "Ask for a password for the user."}),
        (("--password-file",), {"metavar": "FILE", "help": "Take the password from this file's first line; - is standard input."}),
        (("--hostname",), {"help": "The guest's host name.  [default: the VM's name]"}),
        (("--user-data",), {"metavar": "FILE", "help": "A cloud-init user-data document."}),
        (("--network-config",), {"metavar": "FILE", "help": "A cloud-init network-config document."}),
        (("--run-policy",), {"type": click.Choice(["always", "on-failure", "manual"]), "help": "Start it again when it stopped by itself?  [default: on-failure]"}),
        (("--autostart",), {"is_flag": True, "help": "Start it with the host."}),
        (("--priority",), {"type": int, "help": "Order of autostart; lower starts earlier."}),
        (("--description",), {"default": "", "help": "For people."}),
        (("--label", "labels"), {"multiple": True, "metavar": "KEY=VALUE", "help": "A label (repeatable)."}),
        (("--protect",), {"is_flag": True, "help": "Refuse its deletion."}),
        (("--no-start", "no_start"), {"is_flag": True, "help": "Make it, do not start it."}),
        (("--force",), {"is_flag": True, "help": "Allow disks larger than the free space (thin provisioning)."}),
        (("--dry-run",), {"is_flag": True, "help": "Check everything, make nothing, show what would be made."}),
        (("--print-xml",), {"is_flag": True, "help": "Print the domain's XML instead of making it."}),
    ]  # fmt: skip


def vm_options(short: Mapping[str, str]) -> Callable[[_F], _F]:
    """All of them as one decorator; `short` gives single letters, which differ between the two commands."""

    def decorate(function: _F) -> _F:
        decorated: Any = function
        for option, _ in sorted(REFUSED.items(), reverse=True):
            decorated = click.option(
                option,
                hidden=True,
                help="virt-install's.",
                multiple=True,
                is_flag=False,
                flag_value="yes",
                expose_value=False,
                callback=_refuse,
            )(decorated)
        for option in (*_SILENT, "--nodisks"):
            keep = option == "--nodisks"
            decorated = click.option(option, hidden=True, help="virt-install's.", is_flag=True, expose_value=keep)(
                decorated
            )
        for names, settings in reversed(_options()):
            letters = (short[names[0]],) if names[0] in short else ()
            decorated = click.option(*letters, *names, **settings)(decorated)
        wrapped: _F = decorated
        return wrapped

    return decorate
