"""The daemon's unit: hardened, as far as its work allows."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_unit_leaves_the_daemon_what_it_needs() -> None:
    """Whatever gives the unit a file system of its own takes routers' namespaces from the host; a list of devices, even of
    one, takes /dev/kvm; and disks are written, images read, where users have them."""
    unit = (ROOT / "packaging/corral.service").read_text().splitlines()
    settings = {line.partition("=")[0] for line in unit if not line.startswith("#")}
    hidden = {"ProtectSystem", "ProtectHome", "ProtectKernelModules", "ProtectKernelLogs", "ProtectKernelTunables"}
    hidden |= {"ProtectControlGroups", "ProtectClock", "PrivateTmp", "PrivateDevices", "PrivateMounts", "DeviceAllow"}
    hidden |= {"ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "MountFlags"}
    assert not settings & hidden
    for kept in ("NoNewPrivileges=yes", "LockPersonality=yes", "KillMode=process", "Type=notify"):
        assert kept in unit
    families = next(line for line in unit if line.startswith("RestrictAddressFamilies="))
    assert {"AF_UNIX", "AF_NETLINK", "AF_PACKET"} <= {*families.partition("=")[2].split()}
