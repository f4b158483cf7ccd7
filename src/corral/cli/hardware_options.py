"""The options of the machine itself, as virt-install writes them, as parts of a request's hardware."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from corral.cli.syntax import Syntax, number, one_of, split_commas, truth
from corral.errors import CorralError
from corral.names import MIB, parse_size_bytes

_NOT_YET: Final = "leave it out"
_NUMA: Final = "leave it out here; `corral edit` sets NUMA cells"

VCPUS: Final = Syntax(
    option="--vcpus",
    keys={
        "vcpus": "vcpus",
        "maxvcpus": "maxvcpus",
        "sockets": "sockets",
        "cores": "cores",
        "threads": "threads",
        "cpuset": "cpuset",
        "placement": "placement",
    },
    first="vcpus",
    refused={"dies": _NOT_YET, "clusters": _NOT_YET, "vcpu.": _NOT_YET, "current": "say 2,maxvcpus=4"},
)
MEMORY: Final = Syntax(
    option="--memory",
    keys={"memory": "memory", "currentMemory": "memory", "maxmemory": "maxmemory", "hugepages": "hugepages"},
    first="memory",
    refused={"memoryBacking.": "hugepages=yes"},
)
CPU: Final = Syntax(
    option="--cpu",
    keys={
        "model": "model",
        "mode": "mode",
        "topology.sockets": "sockets",
        "topology.cores": "cores",
        "topology.threads": "threads",
        "secure": "secure",
        "migratable": "migratable",
        "check": "check",
        "match": "match",
    },
    first="model",
    refused={"numa.": _NUMA, "cell": _NUMA, "cache.": _NOT_YET, "maxphysaddr.": _NOT_YET, "vendor": _NOT_YET},
)
TPM: Final = Syntax(
    option="--tpm",
    keys={"type": "type", "backend.type": "type", "version": "version", "backend.version": "version", "model": "model"},
    first="type",
    refused={"path": "only emulated TPMs", "device.path": "only emulated TPMs", "backend.": _NOT_YET},
)
WATCHDOG: Final = Syntax(option="--watchdog", keys={"model": "model", "action": "action"}, first="model")
VIDEO: Final = Syntax(
    option="--video",
    keys={"model": "model", "model.type": "model"},
    first="model",
    refused=dict.fromkeys(("heads", "ram", "vram", "vgamem", "accel3d", "model.", "driver."), _NOT_YET),
)
SOUND: Final = Syntax(
    option="--sound", keys={"model": "model"}, first="model", refused={"codec.": _NOT_YET, "audio.": _NOT_YET}
)
CONTROLLER: Final = Syntax(
    option="--controller",
    keys={"type": "type", "model": "model", "index": "index"},
    first="type",
    refused={"address.": "addresses are given out", "driver.": _NOT_YET, "maxGrantFrames": _NOT_YET, "ports": _NOT_YET},
)
FILESYSTEM: Final = Syntax(
    option="--filesystem",
    keys={
        "source": "source",
        "source.dir": "source",
        "target": "target",
        "target.dir": "target",
        "type": "type",
        "accessmode": "accessmode",
        "driver.type": "driver",
        "readonly": "readonly",
    },
    first="source",
    refused={"binary.": _NOT_YET, "idmap": _NOT_YET, "fmode": _NOT_YET, "dmode": _NOT_YET, "driver.": _NOT_YET},
)
BOOT: Final = Syntax(
    option="--boot",
    keys={
        "uefi": "uefi",
        "firmware": "firmware",
        "menu": "menu",
        "bootmenu.enable": "menu",
        "kernel": "kernel",
        "initrd": "initrd",
        "kernel_args": "cmdline",
        "cmdline": "cmdline",
        "loader.secure": "secure",
        "loader_secure": "secure",
        "machine": "machine",
        "arch": "arch",
    },
    words=("hd", "cdrom", "network", "uefi"),
    refused={
        "fd": "there are no floppy disks",
        "loader": "`uefi` chooses the firmware that is installed",
        "loader.": "`uefi` chooses the firmware that is installed; secure boot: loader.secure=yes",
        "nvram": "each VM has an NVRAM of its own",
        "nvram.": "each VM has an NVRAM of its own",
        "useserial": "the serial console is always there",
        "bios.useserial": "the serial console is always there",
        "rebootTimeout": _NOT_YET,
        "bios.rebootTimeout": _NOT_YET,
        "bootmenu.timeout": _NOT_YET,
        "dtb": _NOT_YET,
        "smbios_mode": _NOT_YET,
        "init": "there are no containers",
        "initargs": "there are no containers",
        "firmware.": "secure boot: loader.secure=yes",
        "refresh-machine-type": _NOT_YET,
    },
)

_VIDEO: Final = {word: word for word in ("vga", "virtio", "qxl", "bochs", "ramfb", "none")}
_SOUND: Final = {"ich9": "ich9", "ac97": "ac97", "virtio": "virtio", "none": "none", "default": "ich9", "yes": "ich9"}
_MODES: Final = {"host-model": "host-model", "host-passthrough": "host-passthrough", "maximum": "maximum"}
_CPU_WORDS: Final = {"host": "host-passthrough", "host-copy": "host-model", **_MODES}


def memory_mib(text: str) -> int:
    """`2G`, `512M`, `1024` (MiB) as MiB."""
    size_bytes = parse_size_bytes(text, "m", "memory")
    if size_bytes % MIB:
        raise CorralError(
            "invalid-size", f"memory {text!r}", "not a whole number of MiB", "write for example 512M or 2G"
        )
    return size_bytes // MIB


def parse_memory(text: str) -> dict[str, Any]:
    """`2048`, `2G,maxmemory=4G,hugepages=yes`: the request's part, its hardware under `hardware`."""
    if "," not in text and "=" not in text:
        return {"memory_mib": memory_mib(text)}
    pairs = MEMORY.read(text)
    memory: dict[str, Any] = {}
    if "maxmemory" in pairs:
        memory["max_mib"] = memory_mib(pairs["maxmemory"])
    if truth(pairs.get("hugepages", "no"), "--memory hugepages"):
        memory["huge_pages"] = "2M"
    part: dict[str, Any] = {"hardware": {"memory": memory}} if memory else {}
    if "memory" in pairs:
        part["memory_mib"] = memory_mib(pairs["memory"])
    return part


def parse_vcpus(text: str) -> dict[str, Any]:
    """`4`, `4,sockets=2,cores=2,maxvcpus=8,cpuset=0-3`."""
    pairs = VCPUS.read(text)
    part: dict[str, Any] = {}
    if "vcpus" in pairs:
        part["vcpus"] = number(pairs["vcpus"], "--vcpus")
    topology = _topology(pairs, "--vcpus")
    cpu: dict[str, Any] = {"topology": topology} if topology else {}
    if "maxvcpus" in pairs:
        cpu["vcpus_max"] = number(pairs["maxvcpus"], "--vcpus maxvcpus")
    if topology and "vcpus" not in part:
        part["vcpus"] = topology.get("sockets", 1) * topology.get("cores", 1) * topology.get("threads", 1)
    if pairs.get("cpuset", "auto") != "auto":
        count = cpu.get("vcpus_max") or part.get("vcpus", 1)
        cpu["pins"] = [{"vcpu": vcpu, "cpus": pairs["cpuset"]} for vcpu in range(count)]
    if cpu:
        part["hardware"] = {"cpu": cpu}
    return part


def _topology(pairs: dict[str, str], option: str) -> dict[str, int]:
    return {key: number(pairs[key], f"{option} {key}") for key in ("sockets", "cores", "threads") if key in pairs}


def parse_cpu(text: str) -> dict[str, Any]:
    """`host-passthrough`, `EPYC,+svm,-x2apic`, `model=EPYC,require=avx2,disable=svm`: part of hardware.cpu."""
    features, rest = [], []
    for part in split_commas(text, "--cpu"):
        key, equals, value = part.partition("=")
        if part[:1] in "+-" and not equals:
            features.append(part)
        elif key in ("require", "force", "disable", "forbid") and value:
            features.append(("+" if key in ("require", "force") else "-") + value)
        else:
            rest.append(part)
    pairs = CPU.read(",".join(f'"{part}"' for part in rest)) if rest else {}
    cpu: dict[str, Any] = {}
    if "mode" in pairs:
        cpu["model"] = one_of(pairs["mode"], _MODES, "--cpu mode")
    if "model" in pairs and pairs["model"] != "default":
        cpu["model"] = _CPU_WORDS.get(pairs["model"], pairs["model"])
    if features:
        cpu["features"] = features
    if topology := _topology(pairs, "--cpu"):
        cpu["topology"] = topology
    return cpu


def parse_tpm(text: str) -> bool:
    """Whether there is one: `emulator,version=2.0,model=tpm-crb`, `none`."""
    pairs = TPM.read(text)
    kind = pairs.get("type", "emulator")
    if kind == "none":
        return False
    if kind not in ("emulator", "default", "tpm-crb", "tpm-tis"):
        raise CorralError("unsupported", f"--tpm {text!r}", f"a {kind} TPM is not to be had", "--tpm emulator")
    if pairs.get("version", "2.0") not in ("2.0", "default"):
        raise CorralError("unsupported", f"--tpm {text!r}", "only TPM 2.0 is emulated", "version=2.0")
    return True


def parse_watchdog(text: str) -> str | None:
    """Its action; None without one."""
    pairs = WATCHDOG.read(text)
    if pairs.get("model") == "none":
        return None
    one_of(pairs.get("model", "default"), {"default": "", "i6300esb": ""}, "--watchdog")
    actions = {word: word for word in ("reset", "poweroff", "pause", "none")} | {"default": "reset"}
    return one_of(pairs.get("action", "default"), actions, "--watchdog action")


def parse_video(text: str) -> str:
    return one_of(
        VIDEO.read(text)["model"], _VIDEO, "--video", "there is vga (every system draws on it), virtio, qxl, bochs"
    )


def parse_sound(text: str) -> str:
    return one_of(SOUND.read(text)["model"], _SOUND, "--sound")


def parse_rng(text: str) -> bool:
    known = ("/dev/urandom", "/dev/random", "default", "builtin", "random", "yes")
    if text in ("none", "no"):
        return False
    if text.partition(",")[0] in known:
        return True
    raise CorralError("unsupported", f"--rng {text!r}", "the source is the host's /dev/urandom", "--rng /dev/urandom")


def parse_serials(texts: Sequence[str]) -> int:
    """How many serial ports; each is a pty."""
    for text in texts:
        if text.partition(",")[0] not in ("pty", "type=pty"):
            raise CorralError(
                "unsupported", f"--serial {text!r}", "serial ports are ptys with a log", "--serial pty; corral console"
            )
    return len(texts)


def parse_controllers(texts: Sequence[str]) -> dict[str, Any]:
    """Controllers come with the devices that need them: only USB is a wish of its own."""
    part: dict[str, Any] = {}
    for text in texts:
        pairs = CONTROLLER.read(text)
        kind = one_of(
            pairs.get("type", ""),
            {word: word for word in ("usb", "usb2", "usb3", "scsi", "sata", "virtio-serial", "pci")},
            "--controller",
        )
        if kind.startswith("usb"):
            part["usb"] = pairs.get("model") != "none"
        elif kind == "scsi" and pairs.get("model", "virtio-scsi") not in ("virtio-scsi", "auto"):
            raise CorralError("unsupported", f"--controller {text!r}", "SCSI is virtio-scsi", "model=virtio-scsi")
    return part


def parse_filesystem(text: str) -> dict[str, Any]:
    """`/srv/data,data`, `source=/srv/data,target=data,readonly=no`: read-only unless it says otherwise."""
    parts = split_commas(text, "--filesystem")
    if len(parts) > 1 and "=" not in parts[1]:
        parts[1] = f"target={parts[1]}"
    pairs = FILESYSTEM.read(",".join(f'"{part}"' for part in parts))
    asked = f"--filesystem {text!r}"
    if "source" not in pairs or "target" not in pairs:
        raise CorralError("invalid-argument", asked, "a source and a target are needed", "/srv/data,data")
    if pairs.get("type", "mount") != "mount" or pairs.get("driver", "virtiofs") != "virtiofs":
        raise CorralError("unsupported", asked, "folders are shared by virtiofs", "driver.type=virtiofs")
    share: dict[str, Any] = {
        "name": pairs["target"].strip("/"),
        "path": str(Path(pairs["source"]).expanduser().absolute()),
    }
    if "readonly" in pairs:
        share["read_only"] = truth(pairs["readonly"], "--filesystem readonly")
    return share


def parse_hostdev(text: str) -> dict[str, str]:
    """`0000:01:00.0`, `01:00.0`, `pci_0000_01_00_0`, `046d:c52b`, `0x046d:0xc52b`."""
    word = text.lower()
    if word.startswith("pci_"):
        word = re.sub(r"^pci_(\w{4})_(\w{2})_(\w{2})_(\w)$", r"\1:\2:\3.\4", word)
    if match := re.fullmatch(r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])", word):
        return {"kind": "pci", "address": f"{match[1] or '0000'}:{match[2]}"}
    if match := re.fullmatch(r"(?:0x)?([0-9a-f]{4}):(?:0x)?([0-9a-f]{4})", word):
        return {"kind": "usb", "vendor": match[1], "product": match[2]}
    raise CorralError(
        "unsupported",
        f"--hostdev {text!r}",
        "neither a PCI address nor a USB vendor:product",
        "0000:01:00.0 as lspci -D prints it, or 046d:c52b as lsusb does",
    )


def parse_boot(text: str) -> dict[str, Any]:
    """`uefi`, `hd,cdrom,network,menu=on`, `kernel=…,initrd=…,kernel_args=…`. The order is under `order`."""
    pairs = BOOT.read(text)
    boot: dict[str, Any] = {}
    order = [word for word in pairs if word in ("hd", "cdrom", "network")]
    if order:
        boot["order"] = order
    firmware = {"efi": "uefi", "uefi": "uefi", "bios": "bios"}
    if truth(pairs.get("uefi", "no"), "--boot uefi"):
        boot["firmware"] = "uefi"
    elif "firmware" in pairs:
        boot["firmware"] = one_of(pairs["firmware"], firmware, "--boot firmware")
    if "menu" in pairs:
        boot["boot_menu"] = truth(pairs["menu"], "--boot menu")
    if "secure" in pairs:
        boot["secure_boot"] = truth(pairs["secure"], "--boot loader.secure")
    if "machine" in pairs and not re.fullmatch(r"q35|pc-q35-[\d.]+", pairs["machine"]):
        raise CorralError("unsupported", f"--boot {text!r}", "the machine is q35", "leave machine= out")
    if "kernel" in pairs:
        boot["kernel"] = {
            "kernel": str(Path(pairs["kernel"]).expanduser().absolute()),
            **({"initrd": str(Path(pairs["initrd"]).expanduser().absolute())} if "initrd" in pairs else {}),
            **({"cmdline": pairs["cmdline"]} if "cmdline" in pairs else {}),
        }
    elif "initrd" in pairs or "cmdline" in pairs:
        raise CorralError("invalid-argument", f"--boot {text!r}", "there is no kernel to go with it", "kernel=…")
    return boot
