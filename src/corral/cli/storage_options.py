"""`--disk`, `--network` and `--graphics`, as virt-install writes them, as parts of a request."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from corral.cli.bandwidth import parse_bandwidth
from corral.cli.syntax import Syntax, number, one_of, truth
from corral.errors import CorralError
from corral.names import parse_size_bytes

NOT_YET: Final = "leave it out"
_LIMIT: Final = "limit the sum of reads and writes: iops=N, bytes_per_s=N"

DISK: Final = Syntax(
    option="--disk",
    keys={
        "size": "size",
        "path": "path",
        "source.file": "path",
        "source.dev": "path",
        "format": "format",
        "driver.type": "format",
        "bus": "bus",
        "target.bus": "bus",
        "device": "device",
        "type": "type",
        "cache": "cache",
        "driver.cache": "cache",
        "io": "aio",
        "aio": "aio",
        "driver.io": "aio",
        "discard": "discard",
        "driver.discard": "discard",
        "readonly": "read_only",
        "read_only": "read_only",
        "perms": "perms",
        "sparse": "sparse",
        "pool": "pool",
        "source.pool": "pool",
        "volume": "volume",
        "source.volume": "volume",
        "image": "image",
        "name": "name",
        "keep": "keep",
        "io_thread": "io_thread",
        "iothread": "io_thread",
        "driver.iothread": "io_thread",
        "iops": "iops_max",
        "total_iops_sec": "iops_max",
        "iotune.total_iops_sec": "iops_max",
        "bytes_per_s": "bytes_per_s_max",
        "total_bytes_sec": "bytes_per_s_max",
        "iotune.total_bytes_sec": "bytes_per_s_max",
        "boot_order": "boot_order",
        "boot.order": "boot_order",
    },
    first="path",
    refused={
        "source.": "only files, block devices and volumes can be disks",
        "backing_store": "import the disk below as an image: corral image import, then --image",
        "backing_format": "import the disk below as an image: corral image import, then --image",
        "vol": "name the volume alone: volume=NAME",
        "shareable": "that is the volume's: corral volume create --shared, then volume=NAME",
        "serial": "each disk's serial is its name: name=…",
        "wwn": "each disk's serial is its name: name=…",
        "removable": NOT_YET,
        "startup_policy": "an ISO that is in a drive cannot go away: it is an image",
        "error_policy": NOT_YET,
        "rerror_policy": NOT_YET,
        "snapshot_policy": NOT_YET,
        "detect_zeroes": NOT_YET,
        "sgio": NOT_YET,
        "geometry.": NOT_YET,
        "blockio.": NOT_YET,
        "logical_block_size": NOT_YET,
        "physical_block_size": NOT_YET,
        "reservations.": NOT_YET,
        "read_bytes_sec": _LIMIT,
        "write_bytes_sec": _LIMIT,
        "read_iops_sec": _LIMIT,
        "write_iops_sec": _LIMIT,
        "iotune.": _LIMIT,
        "driver.": NOT_YET,
        "target.": "targets are given out in the order of the disks",
        "target": "targets are given out in the order of the disks",
        "address.": "addresses are given out",
        "seclabel": "each QEMU runs under a uid of its own",
        "boot.": NOT_YET,
        "driver_name": "it is qemu",
        "driver_type": "say format=…",
        "xpath": "only what Corral has words for",
        "alias.": "name=… is its name",
    },
)

NETWORK: Final = Syntax(
    option="--network",
    keys={
        "network": "network",
        "source.network": "network",
        "bridge": "bridge",
        "source.bridge": "bridge",
        "type": "type",
        "model": "model",
        "model.type": "model",
        "mac": "mac",
        "mac.address": "mac",
        "address": "address",
        "link": "link_up",
        "link_state": "link_up",
        "link.state": "link_up",
        "queues": "queues",
        "driver.queues": "queues",
        "driver_queues": "queues",
        "pxe": "pxe",
        "in": "bandwidth_in",
        "out": "bandwidth_out",
        "groups": "groups",
        "group": "groups",
        "boot_order": "boot_order",
        "boot.order": "boot_order",
    },
    first="network",
    refused={
        "source": "only networks of Corral's: corral network list",
        "source_mode": "only networks of Corral's: corral network list",
        "source.": "only networks of Corral's: corral network list",
        "portgroup": NOT_YET,
        "virtualport": NOT_YET,
        "virtualport.": NOT_YET,
        "filterref": NOT_YET,
        "filterref.": NOT_YET,
        "rom": NOT_YET,
        "rom.": NOT_YET,
        "rom_bar": NOT_YET,
        "rom_file": NOT_YET,
        "mtu": NOT_YET,
        "mtu.": NOT_YET,
        "target": "the host's end is named by libvirt",
        "target.": "the host's end is named by libvirt",
        "driver_name": NOT_YET,
        "driver.": NOT_YET,
        "trustGuestRxFilters": NOT_YET,
        "address.": "addresses are given out",
        "portForward": NOT_YET,
        "backend.": NOT_YET,
        "xpath": "only what Corral has words for",
        "alias.": "cards are called net0, net1 …",
    },
)

GRAPHICS: Final = Syntax(
    option="--graphics",
    keys={"type": "type", "listen": "listen", "listens0.type": "listen"},
    first="type",
    refused={
        "port": "ports are given out; corral vnc opens a viewer",
        "tlsPort": "ports are given out",
        "tlsport": "ports are given out",
        "websocket": "ports are given out",
        "password": "without listen= the console is a Unix socket that only you may open",
        "passwd": "without listen= the console is a Unix socket that only you may open",
        "passwordvalidto": "without listen= the console is a Unix socket that only you may open",
        "keymap": "the guest decides",
        "gl": NOT_YET,
        "gl.": NOT_YET,
        "rendernode": NOT_YET,
        "connected": NOT_YET,
        "defaultMode": NOT_YET,
        "socket": "each VM has a socket of its own",
        "image_compression": NOT_YET,
        "clipboard_copypaste": NOT_YET,
        "filetransfer_enable": NOT_YET,
        "streaming_mode": NOT_YET,
        "listens": "say listen=ADDRESS",
    },
)

_DISK_BUSES: Final = {"virtio": "virtio", "scsi": "scsi", "sata": "sata"}
_FORMATS: Final = {"qcow2": "qcow2", "raw": "raw"}
_CACHES: Final = {word: word for word in ("writeback", "none", "writethrough", "directsync", "unsafe")}
_AIO: Final = {word: word for word in ("threads", "native", "io_uring")}
_NIC_MODELS: Final = {"virtio": "virtio", "e1000e": "e1000e", "rtl8139": "rtl8139"}
_GRAPHICS: Final = {"none": "none", "vnc": "vnc", "spice": "spice"}
_SIZES_ALONE: Final = frozenset("0123456789")


def parse_disk(text: str) -> dict[str, Any]:
    """A `--disk`: `20`, `20G`, `size=20`, `path=/srv/a.raw,format=raw`, `/srv/a.qcow2,size=20`."""
    if "=" not in text and "," not in text and text[:1] in _SIZES_ALONE and "/" not in text:
        return {"size_bytes": parse_size_bytes(text, "g", "disk")}
    pairs = DISK.read(text)
    disk: dict[str, Any] = {}
    if "name" in pairs:
        disk["name"] = pairs["name"]
    _read_device(disk, pairs, text)
    for key, known in (("format", _FORMATS), ("bus", _DISK_BUSES), ("cache", _CACHES), ("aio", _AIO)):
        if key in pairs:
            disk[key] = one_of(pairs[key], known, f"--disk {key}")
    if "discard" in pairs:
        disk["discard"] = one_of(pairs["discard"], {"unmap": "unmap", "ignore": "ignore"}, "--disk discard")
    for key in ("io_thread", "iops_max", "bytes_per_s_max", "boot_order"):
        if key in pairs:
            disk[key] = number(pairs[key], f"--disk {key}")
    if "size" in pairs:
        disk["size_bytes"] = parse_size_bytes(pairs["size"], "g", "disk")
    if "volume" in pairs:
        disk["volume"] = pairs["volume"]
    if pairs.get("pool", "default") != "default":
        disk["pool"] = pairs["pool"]
    _read_rights(disk, pairs)
    _check_disk(disk, pairs, text)
    return disk


def _read_rights(disk: dict[str, Any], pairs: dict[str, str]) -> None:
    if "read_only" in pairs:
        disk["read_only"] = truth(pairs["read_only"], "--disk read_only")
    if pairs.get("perms", "rw") != "rw":
        disk["read_only"] = one_of(pairs["perms"], {"ro": "yes"}, "--disk perms") == "yes"
    if "keep" in pairs:
        disk["delete_with_vm"] = not truth(pairs["keep"], "--disk keep")


def _read_device(disk: dict[str, Any], pairs: dict[str, str], text: str) -> None:
    device = one_of(pairs.get("device", "disk"), {"disk": "disk", "cdrom": "cdrom"}, "--disk device")
    if device == "cdrom":
        disk["device"] = "cdrom"
    if "image" in pairs:
        disk["image"] = pairs["image"]
    if "path" not in pairs:
        return
    path = str(Path(pairs["path"]).expanduser().absolute())
    if device == "cdrom":
        disk["medium"] = pairs["path"]
        return
    disk["path"] = path
    if "size" in pairs:
        disk["create"] = True
    if "format" not in pairs and path.endswith(".raw"):
        disk["format"] = "raw"


def _check_disk(disk: dict[str, Any], pairs: dict[str, str], text: str) -> None:
    asked = f"--disk {text!r}"
    if "type" in pairs and pairs["type"] not in ("file", "block", "volume"):
        raise CorralError("unsupported", asked, f"there are no disks of type {pairs['type']}", "file, or block")
    if not truth(pairs.get("sparse", "yes"), "--disk sparse"):
        raise CorralError("unsupported", asked, "disks take space as the guest writes", "leave sparse=no out")
    if disk.get("device") == "cdrom":
        if "size_bytes" in disk:
            raise CorralError("invalid-argument", asked, "a drive for CDs has no size", "leave size= out")
        return
    if not {"size_bytes", "path", "volume"} & disk.keys() and "pool" not in pairs:
        raise CorralError("invalid-argument", asked, "neither a size nor a path", "write size=20 or path=…")


def parse_networks(texts: Sequence[str]) -> list[dict[str, Any]]:
    """All `--network`: `default`, `network=default,mac=…,model=virtio`, `bridge=br0`; `none` alone is no card at all."""
    if "none" in texts:
        if len(texts) > 1:
            raise CorralError("invalid-argument", "--network none", "it excludes the others", "leave it out")
        return []
    return [_network(text) for text in texts]


def _network(text: str) -> dict[str, Any]:
    asked = f"--network {text!r}"
    if text.partition(",")[0] in ("user", "passt", "type=user", "type=direct", "hostdev"):
        raise CorralError("unsupported", asked, "cards are on networks of Corral's", "--network default: NAT, too")
    pairs = NETWORK.read(text)
    if pairs.get("type", "network") not in ("network", "bridge"):
        raise CorralError("unsupported", asked, "cards are on networks of Corral's", "--network default: NAT, too")
    if "bridge" in pairs and "network" in pairs:
        raise CorralError("invalid-argument", asked, "a card is on one network", "leave one of the two out")
    nic: dict[str, Any] = {key: pairs[key] for key in ("network", "bridge", "address") if key in pairs}
    if pairs.get("mac", "RANDOM") != "RANDOM":
        nic["mac"] = pairs["mac"].lower()
    if "model" in pairs:
        nic["model"] = one_of(pairs["model"], _NIC_MODELS, "--network model")
    if "link_up" in pairs:
        link = {"up": "up", "down": "down", "yes": "up", "no": "down"}
        nic["link_up"] = one_of(pairs["link_up"], link, "--network link") == "up"
    for key in ("queues", "boot_order"):
        if key in pairs:
            nic[key] = number(pairs[key], f"--network {key}")
    if "pxe" in pairs:
        nic["pxe"] = truth(pairs["pxe"], "--network pxe")
    nic |= {f"bandwidth_{word}": limit for word, limit in _limits(pairs)}
    if "groups" in pairs:
        nic["groups"] = parse_groups(pairs["groups"])
    return nic


def _limits(pairs: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for word in ("in", "out"):
        if (text := pairs.get(f"bandwidth_{word}")) is not None:
            yield word, parse_bandwidth(text, f"--network {word}")


def parse_groups(text: str) -> list[str]:
    """Names of security groups: `web+ssh`; empty: none."""
    return [name for name in text.split("+") if name]


def parse_graphics(text: str) -> dict[str, Any]:
    """`none`, `vnc`, `spice,listen=0.0.0.0`."""
    pairs = GRAPHICS.read(text)
    graphics: dict[str, Any] = {}
    if "type" in pairs:
        graphics["graphics"] = one_of(pairs["type"], _GRAPHICS, "--graphics")
    listen = pairs.get("listen", "")
    if listen == "localhost":
        listen = "127.0.0.1"
    if listen and listen not in ("none", "socket"):
        graphics["graphics_listen"] = listen
    return graphics
